#include "vmm/supervise/quarantine_file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <kj/vector.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/files/run_folder.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

// Some hundred requests: a guest shall not fill the folder.
constexpr off_t LARGEST = 1 << 20;
constexpr size_t BYTES_A_LINE = 32;

void addText(kj::Vector<char>& text, kj::StringPtr line) {
  text.addAll(line.begin(), line.end());
}

void addRequest(kj::Vector<char>& text, const virtio::Quarantine::Kept& kept) {
  auto& request = kept.request;
  addText(text, kj::str("request ", request.sequence, " of queue ", request.queue, ", head ",
                        request.head, ": ", request.readableBytes, " bytes to read, ",
                        request.writableBytes, " to write; the first ", kept.bytes.size(), ":\n"));
  for (size_t i = 0; i < kept.bytes.size(); i += BYTES_A_LINE) {
    size_t end = kj::min(i + BYTES_A_LINE, kept.bytes.size());
    addText(text, kj::str(kj::encodeHex(kept.bytes.slice(i, end)), "\n"));
  }
}

}  // namespace

QuarantineFile::QuarantineFile(kj::StringPtr vm, kj::StringPtr device,
                               const virtio::Quarantine& requests)
    : requests(requests),
      device(kj::heapString(device)),
      path(kj::str(runFolder(), "/", vm, ".", device, QUARANTINE)) {}

kj::Maybe<kj::String> QuarantineFile::writeNew() {
  uint64_t count = requests.count();
  if (isOver || count == seen) return nullptr;
  // The device may have written any number there.
  uint64_t number = count - kj::min(count - seen, requests.capacity());
  kj::Vector<char> text;
  uint32_t kept = 0;
  for (; number != count; number++) {
    KJ_IF_MAYBE (request, requests.read(number)) {
      addRequest(text, *request);
      kept++;
    } else if (number + 1 == count) {
      break;  // it may be written just now
    }
  }
  seen = number;
  if (kept == 0) return nullptr;
  return kj::str("two processes in a row of ", device, " died of ", kept == 1 ? "a" : "each of ",
                 kept == 1 ? kj::str() : kj::str(kept), " request", kept == 1 ? "" : "s",
                 " of its driver, which got an error for an answer; ", append(text));
}

// What became of it.
kj::String QuarantineFile::append(kj::ArrayPtr<const char> text) {
  auto failed = [this]() {
    isOver = true;
    return kj::str("the bytes cannot be written to ", quote(path), ": ", errnoText(errno));
  };
  int raw = open(path.cStr(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (raw < 0) return failed();
  kj::AutoCloseFd file(raw);
  struct stat info;
  KJ_SYSCALL(fstat(file, &info));
  if (info.st_size + off_t(text.size()) > LARGEST) {
    isOver = true;
    return kj::str("its bytes are not kept: ", quote(path), " is as large as it may become");
  }
  ssize_t written = write(file, text.begin(), text.size());
  if (written < 0) return failed();
  if (size_t(written) != text.size()) return kj::str(quote(path), " has a part of the bytes");
  return kj::str("the bytes are in ", quote(path));
}

}  // namespace troupe
