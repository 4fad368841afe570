#include "vmm/record/recording_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "tests/fuzz/planted.h"
#include "vmm/record/replay_limits.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// Of one event: a chain has at most 2048 descriptors and 4 MiB of data to record.
constexpr uint32_t MOST_WORDS = 1 << 20;

struct SegmentTable {
  uint32_t countLessOne;
  uint32_t words;
};

// The length of the message at the front of `words`, its table included; 0: it is not all there, or
// is none.
size_t messageWords(kj::ArrayPtr<const capnp::word> words) {
  if (words.size() == 0) return 0;
  SegmentTable table;
  memcpy(&table, words.begin(), sizeof(table));
  if (table.countLessOne != 0 || table.words == 0 || table.words > MOST_WORDS) return 0;
  size_t whole = size_t(1) + table.words;
  bool isThere = whole <= words.size() || fuzz::isPlanted(fuzz::Bug::EVENT_LENGTH);
  return isThere ? whole : 0;
}

}  // namespace

capnp::ReaderOptions EventList::limits() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 4 * MOST_WORDS;
  options.nestingLimit = 8;
  return options;
}

size_t EventList::take(kj::ArrayPtr<const capnp::word> words) {
  size_t taken = 0;
  while (size_t whole = messageWords(words.slice(taken, words.size()))) {
    auto copy = kj::heapArray<capnp::word>(whole);
    memcpy(copy.begin(), words.begin() + taken, whole * sizeof(capnp::word));
    messages.add(kj::mv(copy));
    taken += whole;
  }
  return taken;
}

RecordingReader::RecordingReader(kj::StringPtr pathParam) : path(kj::heapString(pathParam)) {
  int fd = open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) refuse(errnoText(errno));
  kj::AutoCloseFd file(fd);
  struct stat info;
  KJ_SYSCALL(fstat(file, &info));
  if (!S_ISREG(info.st_mode)) refuse("it is no regular file"_kj);
  read(file, info.st_size);
}

RecordingReader::RecordingReader(kj::StringPtr path, int file, uint64_t bytes)
    : path(kj::heapString(path)) {
  read(file, bytes);
}

void RecordingReader::read(int file, uint64_t bytes) {
  if (bytes > MOST_RECORDING_BYTES) refuse("it is larger than a recording can be"_kj);
  words = kj::heapArray<capnp::word>(bytes / sizeof(capnp::word));
  size_t got = kj::FdInputStream(file).tryRead(words.begin(), words.size() * sizeof(capnp::word),
                                               words.size() * sizeof(capnp::word));
  parse(kj::min(bytes, uint64_t(got)));
}

RecordingReader::RecordingReader(kj::StringPtr path, kj::ArrayPtr<const kj::byte> content)
    : path(kj::heapString(path)),
      words(kj::heapArray<capnp::word>(content.size() / sizeof(capnp::word))) {
  if (words.size() > 0) memcpy(words.begin(), content.begin(), words.size() * sizeof(capnp::word));
  parse(content.size());
}

// `words`, of a file of so many bytes.
void RecordingReader::parse(uint64_t bytes) {
  auto all = words.slice(0, bytes / sizeof(capnp::word));
  // The head, whose configuration may have come in several segments.
  KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() {
                 reader = kj::heap<capnp::FlatArrayMessageReader>(all, EventList::limits());
                 auto version = reader->getRoot<Recording>().getVersion();
                 KJ_REQUIRE(version == Recording::CURRENT_VERSION, "of another version", version);
               })) {
    refuse(*failure);
  }
  kj::ArrayPtr<const capnp::word> rest = all;
  rest = rest.slice(reader->getEnd() - all.begin(), rest.size());
  size_t taken = list.take(rest);
  cut = taken < rest.size() || bytes % sizeof(capnp::word) != 0;
}

void RecordingReader::refuse(const kj::Exception& why) const {
  if (why.getDescription().startsWith("TRP-")) kj::throwFatalException(kj::cp(why));
  refuse(hostileReason(why));
}

void RecordingReader::refuse(kj::StringPtr why) const {
  UserError error(codes::NO_RECORDING, kj::str(quote(path), " is not a recording of a device"));
  error.cause(why).advice("see", "troupe run --record DEVICE=FILE").raise();
}

}  // namespace troupe
