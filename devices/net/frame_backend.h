#pragma once

#include "devices/net/backend.h"

namespace troupe::net {

// A host's end that takes and gives one frame for each system call: a queue of a tap, or a socket
// that keeps messages apart. The kernel moves the bytes; nothing is copied here.
class FrameBackend final: public Backend {
 public:
  enum class Headers { NONE, FIRST };  // whether a NetHeader stands before each frame
  // `fd` is not blocking, and borrowed.
  FrameBackend(int fd, Headers headers);

  int fd() const override { return file; }
  size_t batch() const override { return 1; }
  Sent send(kj::ArrayPtr<const OutgoingFrame> frames) override;
  Received receive(const IncomingRoom& room) override;
  bool hasInput() const override { return false; }

 private:
  Outcome sendOne(const OutgoingFrame& frame);
  bool isClosed() const;

  const int file;
  const Headers headers;
  iovec pieces[MAX_REST_PIECES + 1];
};

}  // namespace troupe::net
