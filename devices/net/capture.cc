#include "devices/net/capture.h"

#include <kj/debug.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "devices/virtio/spin.h"

namespace troupe::net {
namespace {

constexpr uint64_t SECOND_NS = 1000000000;

// https://www.tcpdump.org/manpages/pcap-savefile.5.html
struct FileHeader {
  uint32_t magic = 0xa1b23c4d;  // in our byte order, with nanoseconds
  uint16_t major = 2;
  uint16_t minor = 4;
  uint32_t reserved[2] = {};
  uint32_t frameBytes;
  uint32_t linkType = 1;  // Ethernet
};
static_assert(sizeof(FileHeader) == Capture::FILE_HEADER_BYTES, "the format's");

struct FrameHeader {
  uint32_t seconds;
  uint32_t nanoseconds;
  uint32_t kept;
  uint32_t length;
};
static_assert(sizeof(FrameHeader) == Capture::FRAME_HEADER_BYTES, "the format's");

// The threads that capture may ask for the monotonic clock alone.
uint64_t clockOffset() {
  timespec now;
  KJ_SYSCALL(clock_gettime(CLOCK_REALTIME, &now));
  return now.tv_sec * SECOND_NS + now.tv_nsec - virtio::monotonicNs();
}

}  // namespace

Capture::Capture(int fd, uint64_t maxBytes, uint32_t frameBytes)
    : fd(fd),
      maxBytes(maxBytes),
      frameBytes(frameBytes),
      clockOffsetNs(clockOffset()),
      used(FILE_HEADER_BYTES),
      ended(false),
      end(nullptr) {
  begin();
}

Capture::Capture(int fd, uint64_t maxBytes, uint32_t frameBytes, uint64_t found, uint64_t& end)
    : fd(fd),
      maxBytes(maxBytes),
      frameBytes(frameBytes),
      clockOffsetNs(clockOffset()),
      used(FILE_HEADER_BYTES),
      ended(false),
      end(&end) {
  uint64_t kept = __atomic_load_n(&end, __ATOMIC_RELAXED);
  if (kept == 0) {
    KJ_REQUIRE(found <= FILE_HEADER_BYTES, "TRP-net-107: the file for captured frames is not empty",
               found);
    if (found > 0) cut(0);  // of a process that did not come to note it
    begin();
    kept = FILE_HEADER_BYTES;
    __atomic_store_n(&end, kept, __ATOMIC_RELEASE);
  } else {
    goOn(found);
  }
}

Capture::Capture(int fd, uint64_t maxBytes, uint32_t frameBytes, uint64_t& end)
    : fd(fd),
      isAnothers(true),
      maxBytes(maxBytes),
      frameBytes(frameBytes),
      clockOffsetNs(clockOffset()),
      used(FILE_HEADER_BYTES),
      ended(true),
      end(&end) {}

void Capture::takeOver() {
  if (!isAnothers) return;
  isAnothers = false;
  off_t found;
  KJ_SYSCALL(found = lseek(fd, 0, SEEK_END), "TRP-net-107: captured frames have no end");
  goOn(found);
  ended = false;
}

// Behind the last whole frame.
void Capture::goOn(uint64_t found) {
  uint64_t kept = __atomic_load_n(end, __ATOMIC_RELAXED);
  KJ_REQUIRE(kept >= FILE_HEADER_BYTES && kept <= found,
             "TRP-net-107: the file for captured frames is not as it was left", kept, found);
  cut(kept);
  used = kept;
}

void Capture::begin() {
  FileHeader header;
  header.frameBytes = frameBytes;
  iovec piece{&header, sizeof(header)};
  ssize_t written;
  KJ_SYSCALL(written = writev(fd, &piece, 1),
             "TRP-net-109: the file of captured frames cannot be written");
  KJ_REQUIRE(written == sizeof(header),
             "TRP-net-109: the file of captured frames cannot be written: it has no room");
}

void Capture::cut(uint64_t size) {
  KJ_SYSCALL(ftruncate(fd, size), "TRP-net-109: the file of captured frames cannot be cut");
  KJ_SYSCALL(lseek(fd, 0, SEEK_END));
}

bool Capture::write(kj::ArrayPtr<const iovec> pieces, size_t size) {
  std::lock_guard<std::mutex> lock(mutex);
  if (writev(fd, pieces.begin(), pieces.size()) != ssize_t(size)) return false;
  if (end != nullptr) __atomic_store_n(end, *end + size, __ATOMIC_RELEASE);
  return true;
}

void Capture::add(kj::ArrayPtr<const kj::byte> frame) {
  if (ended.load(std::memory_order_relaxed)) return;
  uint32_t kept = kj::min(frame.size(), size_t(frameBytes));
  uint32_t size = sizeof(FrameHeader) + kept;
  if (used.fetch_add(size, std::memory_order_relaxed) + size > maxBytes) {
    ended = true;
    return;
  }
  uint64_t now = virtio::monotonicNs() + clockOffsetNs;
  FrameHeader header{uint32_t(now / SECOND_NS), uint32_t(now % SECOND_NS), kept,
                     uint32_t(frame.size())};
  iovec pieces[] = {{&header, sizeof(header)}, {const_cast<kj::byte*>(frame.begin()), kept}};
  // Behind half a record nothing could be read.
  if (!write(pieces, size)) ended = true;
}

}  // namespace troupe::net
