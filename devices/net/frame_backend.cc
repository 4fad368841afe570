#include "devices/net/frame_backend.h"

#include <kj/debug.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "devices/virtio/guest_memory.h"

namespace troupe::net {
namespace {

// What became of a frame the kernel answered with `error`.
Backend::Outcome outcomeOf(int error) {
  switch (error) {
    case EAGAIN:
    case EINTR:
      return Backend::Outcome::LATER;
    case EBADFD:  // a tap that was deleted
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ENOTCONN:
    case ESHUTDOWN:
      return Backend::Outcome::GONE;
    default:  // too long, a header it does not like, an interface that is down, no memory
      return Backend::Outcome::DROPPED;
  }
}

}  // namespace

// By syscall(): libc's own functions let their thread be cancelled, which costs as much as a tenth
// of the call. And a frame in one piece goes without a list, which the kernel would have to fetch.
FrameBackend::FrameBackend(int fd, Headers headers) : file(fd), headers(headers) {}

Backend::Sent FrameBackend::send(kj::ArrayPtr<const OutgoingFrame> frames) {
  for (size_t i = 0; i < frames.size(); i++) {
    Outcome outcome = sendOne(frames[i]);
    if (outcome == Outcome::LATER || outcome == Outcome::GONE) return {outcome, i};
  }
  return {Outcome::DONE, frames.size()};
}

Backend::Outcome FrameBackend::sendOne(const OutgoingFrame& frame) {
  KJ_ASSERT(frame.rest.size() <= MAX_REST_PIECES);
  // The start's header and bytes lie side by side.
  auto start = reinterpret_cast<const kj::byte*>(&frame.start);
  size_t skipped = headers == Headers::FIRST ? 0 : sizeof(virtio::NetHeader);
  size_t startBytes = sizeof(virtio::NetHeader) - skipped + frame.startBytes;
  auto piece = kj::arrayPtr(start + skipped, startBytes);
  long sent;
  if (startBytes + (frame.bytes - frame.startBytes) <= ORDINARY_BYTES) {
    if (frame.rest.size() > 0) piece = inOnePiece(piece, frame.rest);
    sent = syscall(SYS_write, file, piece.begin(), piece.size());
  } else {
    pieces[0] = iovec{const_cast<kj::byte*>(piece.begin()), piece.size()};
    memcpy(pieces + 1, frame.rest.begin(), frame.rest.size() * sizeof(iovec));
    sent = syscall(SYS_writev, file, pieces, 1 + frame.rest.size());
  }
  return sent >= 0 ? Outcome::DONE : outcomeOf(errno);
}

kj::ArrayPtr<const kj::byte> FrameBackend::inOnePiece(kj::ArrayPtr<const kj::byte> start,
                                                      kj::ArrayPtr<const iovec> rest) {
  memcpy(copy, start.begin(), start.size());
  size_t done = start.size();
  for (const iovec& piece : rest) {
    KJ_ASSERT(piece.iov_len <= ORDINARY_BYTES - done);
    virtio::copyOut(kj::arrayPtr(copy + done, piece.iov_len),
                    static_cast<const kj::byte*>(piece.iov_base));
    done += piece.iov_len;
  }
  return kj::arrayPtr(copy, done);
}

// Whether nothing comes any more: a read of no bytes may have been of an empty message.
bool FrameBackend::isClosed() const {
  pollfd fd{file, POLLIN | POLLRDHUP, 0};
  timespec atOnce{0, 0};
  return ppoll(&fd, 1, &atOnce, nullptr) == 1 &&
         (fd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

Backend::Received FrameBackend::receive(const IncomingRoom& room) {
  kj::ArrayPtr<iovec> pieces = room.pieces;
  auto into = pieces.slice(1, pieces.size());
  size_t headerBytes = headers == Headers::FIRST ? sizeof(room.header) : 0;
  if (headerBytes > 0) {
    // In one piece with what is behind it: most frames are short.
    KJ_DASSERT(into[0].iov_base == &room.header + 1);
    into[0] = iovec{&room.header, headerBytes + into[0].iov_len};
  } else {
    room.header = {};
  }
  long received = into.size() == 1 ? syscall(SYS_read, file, into[0].iov_base, into[0].iov_len)
                                   : syscall(SYS_readv, file, into.begin(), into.size());
  if (received < 0) return {outcomeOf(errno), 0};
  if (received == 0) return {isClosed() ? Outcome::GONE : Outcome::DROPPED, 0};
  if (size_t(received) < headerBytes) return {Outcome::DROPPED, 0};
  return {Outcome::DONE, uint32_t(received - headerBytes)};
}

}  // namespace troupe::net
