#pragma once

#include <kj/array.h>

#include "devices/net/backend.h"

namespace troupe::net {

// A connected stream socket on which each frame stands behind its length, 4 bytes, big-endian: how
// QEMU's `-netdev stream` speaks, and passt. No frame has a virtio header.
//
// Many frames go out with one system call, straight out of guest memory. They come in the same way
// into a buffer here, and are copied from there: a call for each frame would cost more. A peer that
// says a length that cannot be is as good as gone, as nobody knows where its next frame begins.
class StreamBackend final: public Backend {
 public:
  // `fd` is not blocking, and borrowed.
  explicit StreamBackend(int fd);

  int fd() const override { return socket; }
  size_t batch() const override { return BATCH; }
  Sent send(kj::ArrayPtr<const OutgoingFrame> frames) override;
  Received receive(const IncomingRoom& room) override;
  bool hasInput() const override { return frameWaiting() > 0; }

 private:
  static constexpr size_t BATCH = 64;
  static constexpr size_t MAX_PIECES = 1024;  // IOV_MAX
  static constexpr size_t LENGTH_BYTES = 4;
  // At least one frame and its length; several of the largest come with one call.
  static constexpr size_t BUFFER_BYTES = 256 << 10;

  size_t gather(kj::ArrayPtr<const OutgoingFrame> frames);
  Outcome sendRest();
  size_t account(kj::ArrayPtr<const OutgoingFrame> frames, size_t sent);
  void keepRest(const OutgoingFrame& frame, size_t sent);
  size_t frameWaiting() const;
  bool isLost() const;
  Outcome fill();

  const int socket;

  // To the host: what is being sent, and the end of a frame that went in part.
  iovec pieces[MAX_PIECES];
  kj::byte lengths[BATCH][LENGTH_BYTES];
  kj::Array<kj::byte> rest;
  size_t restBegin = 0;
  size_t restEnd = 0;

  // From the host: bytes that were received and not yet taken.
  kj::Array<kj::byte> buffer;
  size_t begin = 0;
  size_t end = 0;
};

}  // namespace troupe::net
