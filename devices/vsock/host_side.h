#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>

namespace troupe::vsock {

class Stream;

// The host's end of one stream: a connected, non-blocking stream socket. Destroying it closes it.
class HostSocket {
 public:
  virtual ~HostSocket() noexcept(false) = default;

  // One system call each: how many bytes (0 from read(): the other side sends no more), or -errno.
  // `pieces` may be guest memory.
  virtual ssize_t read(kj::ArrayPtr<const iovec> pieces) = 0;
  virtual ssize_t write(kj::ArrayPtr<const iovec> pieces) = 0;

  // Half close.
  virtual void endSending() = 0;
  virtual void endReceiving() = 0;

  // Whether the other side takes no more and sends no more, though bytes may wait to be read.
  virtual bool peerGone() = 0;

  // The kernel is to keep little of what was written: there are many streams.
  virtual void keepLittle() = 0;
};

// A connection on its way, for a stream the guest began. Destroying it gives it up.
class ConnectAttempt {
 public:
  virtual ~ConnectAttempt() noexcept(false) = default;

  virtual bool over() = 0;

  // Once, when it is over: null when there is nobody at that port.
  virtual kj::Own<HostSocket> take() = 0;
};

// Somebody's wish to have a stream to the guest. Destroying it without accepted() refuses it.
class Offer {
 public:
  virtual ~Offer() noexcept(false) = default;

  // The guest takes it. Once.
  virtual void accepted() = 0;
};

// What the switchboard asks of the world.
class HostSide {
 public:
  // Looks for somebody at `port` of `cid` (2: the host) for a stream from `guestPort`. Whoever
  // implements this calls Switchboard::ready(stream) when the attempt is over, and from then on
  // whenever the socket has news: bytes, room, its end.
  virtual kj::Own<ConnectAttempt> connect(Stream& stream, uint64_t cid, uint32_t port,
                                          uint32_t guestPort) = 0;

  // An offered stream that the guest had accepted has ended.
  virtual void ended(uint64_t peerCid, uint32_t peerPort, uint32_t guestPort) = 0;
};

}  // namespace troupe::vsock
