#include "devices/net/fuzz_host.h"

#include <kj/debug.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>

#include "devices/virtio/guest_watch.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/watch.h"

namespace troupe::net::fuzzing {
namespace {

using fuzz::finding;

constexpr size_t MOST_ARRIVED = 16;
constexpr size_t MOST_BYTES = 200000;

uint32_t lengthAt(const std::vector<kj::byte>& bytes) {
  return uint32_t(bytes[0]) << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

// Stores `bytes` into `pieces` as the kernel would; returns how many there was room for.
size_t scatter(kj::ArrayPtr<const iovec> pieces, kj::ArrayPtr<const kj::byte> bytes) {
  size_t done = 0;
  for (const iovec& piece : pieces) {
    size_t part = std::min(piece.iov_len, bytes.size() - done);
    auto to = static_cast<kj::byte*>(piece.iov_base);
    if (part == 0) continue;
    virtio::watch::write(to, part);
    memcpy(to, bytes.begin() + done, part);
    done += part;
  }
  return done;
}

std::vector<kj::byte> gathered(kj::ArrayPtr<const iovec> pieces, size_t most) {
  std::vector<kj::byte> bytes;
  for (const iovec& piece : pieces) {
    size_t part = std::min(piece.iov_len, most - bytes.size());
    auto from = static_cast<const kj::byte*>(piece.iov_base);
    if (part > 0) virtio::watch::read(from, part);
    bytes.insert(bytes.end(), from, from + part);
  }
  return bytes;
}

bool isKnown(const virtio::NetHeader& header, uint64_t features) {
  bool ecn = header.gsoType & virtio::NET_HDR_GSO_ECN;
  if (ecn && !(features & virtio::NET_F_HOST_ECN)) return false;
  switch (header.gsoType & 0x7f) {
    case 0:
      return !ecn;
    case 1:
      return features & virtio::NET_F_HOST_TSO4;
    case 4:
      return features & virtio::NET_F_HOST_TSO6;
    case 3:
      return features & virtio::NET_F_HOST_UFO;
    case 5:
      return features & virtio::NET_F_HOST_USO;
    default:
      return false;
  }
}

}  // namespace

FakeHost& host() {
  static FakeHost it;
  return it;
}

void FakeHost::begin(const Expected& newExpected) {
  expected = newExpected;
  arrived.clear();
  setMood(Mood::WELL, 0, 0);
}

void FakeHost::setMood(Mood newMood, uint32_t calls, uint32_t newMost) {
  mood = newMood;
  moodCalls = calls;
  most = newMost;
}

FakeHost::Mood FakeHost::takeMood() {
  if (moodCalls == 0) return Mood::WELL;
  --moodCalls;
  return mood;
}

void FakeHost::arrive(const virtio::NetHeader& header, size_t bytes,
                      const MacAddress& destination) {
  if (arrived.size() >= MOST_ARRIVED) return;
  Arrived frame{header, std::vector<kj::byte>(std::min(bytes, MOST_BYTES), 0x5c)};
  for (size_t i = 0; i < std::min(frame.bytes.size(), sizeof(destination.bytes)); i++)
    frame.bytes[i] = destination.bytes[i];
  uint32_t length = frame.bytes.size();
  const kj::byte prefix[] = {kj::byte(length >> 24), kj::byte(length >> 16), kj::byte(length >> 8),
                             kj::byte(length)};
  arriveRaw(prefix);
  arriveRaw(kj::arrayPtr(frame.bytes.data(), frame.bytes.size()));
  arrived.push_back(std::move(frame));
}

void FakeHost::arriveRaw(kj::ArrayPtr<const kj::byte> bytes) {
  if (arrivedStream.size() > 2 * MOST_BYTES) return;
  arrivedStream.insert(arrivedStream.end(), bytes.begin(), bytes.end());
}

ssize_t FakeHost::read(int fd, kj::ArrayPtr<const iovec> pieces) {
  Mood now = takeMood();
  if (now == Mood::ENDS) return fd == STREAM_FD ? 0 : -EBADFD;
  if (now == Mood::REFUSES) return -ENOBUFS;
  if (fd == STREAM_FD) {
    if (arrivedStream.empty() || now == Mood::FULL) return -EAGAIN;
    size_t size = arrivedStream.size();
    if (now == Mood::PART) size = std::min<size_t>(size, most + 1);
    size = scatter(pieces, kj::arrayPtr(arrivedStream.data(), size));
    arrivedStream.erase(arrivedStream.begin(), arrivedStream.begin() + size);
    return size;
  }
  if (arrived.empty() || now == Mood::FULL) return -EAGAIN;
  Arrived frame = std::move(arrived.front());
  arrived.erase(arrived.begin());
  std::vector<kj::byte> message;
  if (fd == HEADER_FD) {
    auto header = reinterpret_cast<const kj::byte*>(&frame.header);
    message.assign(header, header + sizeof(frame.header));
  }
  message.insert(message.end(), frame.bytes.begin(), frame.bytes.end());
  if (now == Mood::PART) message.resize(std::min<size_t>(message.size(), most));
  return scatter(pieces, kj::arrayPtr(message.data(), message.size()));
}

ssize_t FakeHost::write(int fd, kj::ArrayPtr<const iovec> pieces) {
  if (fd == CAPTURE_FD) {
    return gathered(pieces, MOST_BYTES).size();
  }
  Mood now = takeMood();
  if (now == Mood::FULL) {
    fuzz::hostTookLess();  // what was copied into one piece is copied again
    return -EAGAIN;
  }
  if (now == Mood::REFUSES) return fd == STREAM_FD ? -EAGAIN : -EINVAL;
  if (now == Mood::ENDS) return -EPIPE;
  if (fd == STREAM_FD) {
    auto bytes = gathered(pieces, now == Mood::PART ? most + 1 : SIZE_MAX);
    lookAtStream(kj::arrayPtr(bytes.data(), bytes.size()));
    fuzz::hostTookLess();  // a frame that went in part is read again to be kept
    return bytes.size();
  }
  auto bytes = gathered(pieces, SIZE_MAX);
  virtio::NetHeader header{};
  size_t headerBytes = fd == HEADER_FD ? sizeof(header) : 0;
  if (bytes.size() < headerBytes) finding("a message without a header reached the host");
  if (headerBytes > 0) memcpy(&header, bytes.data(), headerBytes);
  lookAtFrame(header, kj::arrayPtr(bytes.data() + headerBytes, bytes.data() + bytes.size()));
  return bytes.size();
}

void FakeHost::lookAtStream(kj::ArrayPtr<const kj::byte> bytes) {
  sentStream.insert(sentStream.end(), bytes.begin(), bytes.end());
  while (sentStream.size() >= 4) {
    uint32_t length = lengthAt(sentStream);
    if (length < ETHERNET_HEADER_BYTES || length > MAX_FRAME_BYTES) {
      finding(kj::str("a stream says that a frame has ", length, " bytes"));
    }
    if (sentStream.size() < 4 + size_t(length)) return;
    lookAtFrame({}, kj::arrayPtr(sentStream.data() + 4, length));
    sentStream.erase(sentStream.begin(), sentStream.begin() + 4 + length);
  }
}

void FakeHost::lookAtFrame(const virtio::NetHeader& header, kj::ArrayPtr<const kj::byte> frame) {
  if (frame.size() < ETHERNET_HEADER_BYTES || frame.size() > MAX_FRAME_BYTES) {
    finding(kj::str("a frame of ", frame.size(), " bytes reached the host"));
  }
  if (!isKnown(header, expected.features)) {
    finding(kj::str("segments of type ", header.gsoType, " reached a host that does not know it"));
  }
  if (header.gsoType != 0 && header.gsoSize == 0) finding("segments of no size reached the host");
  if (header.flags & virtio::NET_HDR_F_NEEDS_CSUM) {
    size_t place = size_t(header.checksumStart) + header.checksumOffset;
    bool inside = header.checksumStart >= ETHERNET_HEADER_BYTES && place + 2 <= frame.size();
    if (!inside || !(expected.features & virtio::NET_F_CSUM)) {
      finding(kj::str("a checksum at ", place, " of a frame of ", frame.size(), " bytes"));
    }
  }
  // Whose address this is the target's configuration says.
  static constexpr kj::byte OWN[] = {0x52, 0x54, 0, 0, 0, 1};
  if (expected.spoofFilter && memcmp(frame.begin() + 6, OWN, sizeof(OWN)) != 0) {
    finding("a frame left under an address that is not the guest's");
  }
}

}  // namespace troupe::net::fuzzing

using troupe::net::fuzzing::host;

namespace {

bool isFake(int fd) {
  return fd >= troupe::net::fuzzing::PLAIN_FD && fd <= troupe::net::fuzzing::CAPTURE_FD;
}

ssize_t answer(ssize_t result) {
  if (result >= 0) return result;
  errno = -result;
  return -1;
}

}  // namespace

// The C library's, by --wrap.
extern "C" {

ssize_t __real_readv(int fd, const iovec* pieces, int count);
long __real_syscall(long number, ...);
ssize_t __real_writev(int fd, const iovec* pieces, int count);

ssize_t __wrap_readv(int fd, const iovec* pieces, int count) {
  if (!isFake(fd)) return __real_readv(fd, pieces, count);
  if (count < 0 || count > 1024) return answer(-EINVAL);
  return answer(host().read(fd, kj::arrayPtr(pieces, count)));
}

ssize_t __wrap_writev(int fd, const iovec* pieces, int count) {
  if (!isFake(fd)) return __real_writev(fd, pieces, count);
  if (count < 0 || count > 1024) return answer(-EINVAL);
  return answer(host().write(fd, kj::arrayPtr(pieces, count)));
}

// Takes six arguments, however many there are.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a)
    argument = va_arg(list, long);
  va_end(list);
  if (!isFake(a[0])) return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  iovec piece{reinterpret_cast<void*>(a[1]), size_t(a[2])};
  switch (number) {
    case SYS_read:
      return answer(host().read(a[0], kj::arrayPtr(&piece, 1)));
    case SYS_write:
      return answer(host().write(a[0], kj::arrayPtr(&piece, 1)));
    case SYS_readv:
      return __wrap_readv(a[0], reinterpret_cast<const iovec*>(a[1]), a[2]);
    case SYS_writev:
      return __wrap_writev(a[0], reinterpret_cast<const iovec*>(a[1]), a[2]);
    default:
      return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }
}

// Asked after a message of no bytes.
int __wrap_ppoll(pollfd* fds, nfds_t count, const timespec*, const sigset_t*) {
  for (nfds_t i = 0; i < count; i++)
    fds[i].revents = 0;
  return 0;
}
}
