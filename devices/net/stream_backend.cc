#include "devices/net/stream_backend.h"

#include <kj/debug.h>

#include <cerrno>
#include <cstring>

#include "devices/virtio/guest_memory.h"

namespace troupe::net {
namespace {

uint32_t lengthAt(const kj::byte* bytes) {
  return uint32_t(bytes[0]) << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

bool mayTryAgain(int error) {
  return error == EAGAIN || error == EINTR;
}

// Calls `move` for each stretch of `pieces`, with the offset of its first byte, without the first
// `skipped` bytes of all.
template <typename Move>
void forPieces(kj::ArrayPtr<const iovec> pieces, size_t skipped, Move&& move) {
  size_t offset = 0;
  for (const iovec& piece : pieces) {
    size_t skip = kj::min(skipped, piece.iov_len);
    skipped -= skip;
    if (skip < piece.iov_len) {
      move(static_cast<kj::byte*>(piece.iov_base) + skip, offset, piece.iov_len - skip);
      offset += piece.iov_len - skip;
    }
  }
}

}  // namespace

StreamBackend::StreamBackend(int fd)
    : socket(fd),
      rest(kj::heapArray<kj::byte>(LENGTH_BYTES + MAX_FRAME_BYTES)),
      buffer(kj::heapArray<kj::byte>(BUFFER_BYTES)) {}

Backend::Sent StreamBackend::send(kj::ArrayPtr<const OutgoingFrame> frames) {
  size_t done = 0;
  for (;;) {
    Outcome outcome = sendRest();
    if (outcome != Outcome::DONE || done == frames.size()) return {outcome, done};
    auto left = frames.slice(done, frames.size());
    ssize_t sent = writev(socket, pieces, gather(left));
    if (sent < 0) return {mayTryAgain(errno) ? Outcome::LATER : Outcome::GONE, done};
    done += account(left, sent);
  }
}

// Lists as many whole frames as fit; returns how many pieces these are.
size_t StreamBackend::gather(kj::ArrayPtr<const OutgoingFrame> frames) {
  size_t count = 0;
  for (size_t i = 0; i < kj::min(frames.size(), BATCH); i++) {
    const OutgoingFrame& frame = frames[i];
    KJ_ASSERT(frame.rest.size() <= MAX_REST_PIECES);
    size_t needed = 2 + frame.rest.size();
    if (count + needed > MAX_PIECES) break;
    for (size_t j = 0; j < LENGTH_BYTES; j++)
      lengths[i][j] = frame.bytes >> (24 - 8 * j);
    pieces[count] = iovec{lengths[i], LENGTH_BYTES};
    pieces[count + 1] = iovec{const_cast<kj::byte*>(frame.start.bytes), frame.startBytes};
    memcpy(pieces + count + 2, frame.rest.begin(), frame.rest.size() * sizeof(iovec));
    count += needed;
  }
  return count;
}

// How many frames are done with now that `sent` bytes of them are on their way.
size_t StreamBackend::account(kj::ArrayPtr<const OutgoingFrame> frames, size_t sent) {
  size_t count = 0;
  while (sent > 0) {
    const OutgoingFrame& frame = frames[count++];
    size_t whole = LENGTH_BYTES + frame.bytes;
    if (sent < whole) {
      keepRest(frame, sent);
      break;
    }
    sent -= whole;
  }
  return count;
}

// The host must get the end of what it got the beginning of, whatever becomes of the guest's memory
// until there is room.
void StreamBackend::keepRest(const OutgoingFrame& frame, size_t sent) {
  kj::byte length[LENGTH_BYTES];
  for (size_t j = 0; j < LENGTH_BYTES; j++)
    length[j] = frame.bytes >> (24 - 8 * j);
  iovec own[] = {{length, LENGTH_BYTES},
                 {const_cast<kj::byte*>(frame.start.bytes), frame.startBytes}};
  size_t ownBytes = LENGTH_BYTES + frame.startBytes;
  restBegin = restEnd = 0;
  forPieces(own, sent, [&](const kj::byte* bytes, size_t, size_t size) {
    memcpy(rest.begin() + restEnd, bytes, size);
    restEnd += size;
  });
  size_t skipped = sent > ownBytes ? sent - ownBytes : 0;
  forPieces(frame.rest, skipped, [&](const kj::byte* bytes, size_t, size_t size) {
    virtio::copyOut(rest.slice(restEnd, restEnd + size), bytes);
    restEnd += size;
  });
}

Backend::Outcome StreamBackend::sendRest() {
  while (restBegin < restEnd) {
    iovec piece{rest.begin() + restBegin, restEnd - restBegin};
    ssize_t sent = writev(socket, &piece, 1);
    if (sent < 0) return mayTryAgain(errno) ? Outcome::LATER : Outcome::GONE;
    restBegin += sent;
  }
  return Outcome::DONE;
}

// The bytes of the next frame with its length, if all of it is here; else 0.
size_t StreamBackend::frameWaiting() const {
  if (end - begin < LENGTH_BYTES) return 0;
  size_t whole = LENGTH_BYTES + size_t(lengthAt(buffer.begin() + begin));
  return whole <= end - begin ? whole : 0;
}

bool StreamBackend::isLost() const {
  return end - begin >= LENGTH_BYTES && lengthAt(buffer.begin() + begin) > MAX_FRAME_BYTES;
}

Backend::Received StreamBackend::receive(const IncomingRoom& room) {
  size_t whole = frameWaiting();
  if (whole == 0 || isLost()) {
    if (!isLost()) {
      Outcome outcome = fill();
      if (outcome != Outcome::DONE) return {outcome, 0};
    }
    if (isLost()) return {Outcome::GONE, 0};
    whole = frameWaiting();
    if (whole == 0) return {Outcome::LATER, 0};
  }
  auto frame = buffer.slice(begin + LENGTH_BYTES, begin + whole);
  begin += whole;
  room.header = {};
  auto into = room.pieces.slice(1, room.pieces.size());
  forPieces(into, 0, [&](kj::byte* piece, size_t offset, size_t size) {
    if (offset >= frame.size()) return;
    virtio::copyIn(piece, frame.slice(offset, kj::min(offset + size, frame.size())));
  });
  return {Outcome::DONE, uint32_t(frame.size())};
}

// Takes what the host has sent, behind what is here already.
Backend::Outcome StreamBackend::fill() {
  if (begin == end) begin = end = 0;
  if (buffer.size() - begin < LENGTH_BYTES + MAX_FRAME_BYTES) {
    memmove(buffer.begin(), buffer.begin() + begin, end - begin);
    end -= begin;
    begin = 0;
  }
  iovec piece{buffer.begin() + end, buffer.size() - end};
  ssize_t received = readv(socket, &piece, 1);
  if (received < 0) return mayTryAgain(errno) ? Outcome::LATER : Outcome::GONE;
  if (received == 0) return Outcome::GONE;
  end += received;
  return Outcome::DONE;
}

}  // namespace troupe::net
