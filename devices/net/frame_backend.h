#pragma once

#include "devices/net/backend.h"

namespace troupe::net {

// What a frame has at most that is copied, header included: any on a wire that was not told to
// carry longer ones.
constexpr size_t ORDINARY_BYTES = 2048;

// A host's end that takes and gives one frame for each system call: a queue of a tap, or a socket
// that keeps messages apart. The kernel moves the bytes of long frames; ordinary ones are copied
// into one piece first, since a list of pieces costs it more than that.
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
  kj::ArrayPtr<const kj::byte> inOnePiece(kj::ArrayPtr<const kj::byte> start,
                                          kj::ArrayPtr<const iovec> rest);
  bool isClosed() const;

  const int file;
  const Headers headers;
  iovec pieces[MAX_REST_PIECES + 1];
  kj::byte copy[ORDINARY_BYTES];
};

}  // namespace troupe::net
