#pragma once

#include <kj/async-unix.h>
#include <kj/function.h>
#include <kj/io.h>

#include "devices/vsock/host_side.h"

namespace troupe::vsock {

// A socket in the event loop. Reads and writes with preadv2 and pwritev2 alone: neither takes nor
// gives an fd, whatever is at the other end.
//
// Whoever gave it may have kept its file description, and O_NONBLOCK is the description's: it can
// be cleared at any time. So every call says itself that it does not wait (RWF_NOWAIT).
class LoopSocket final: public HostSocket {
 public:
  // `socket` is non-blocking: Linux 6.1 does not know RWF_NOWAIT for sockets, and there nothing
  // waits for as long as that stays so.
  LoopSocket(kj::UnixEventPort& events, kj::AutoCloseFd socket);

  // Calls `news` from the loop whenever the socket may do more than it last would. Once.
  void onNews(kj::Function<void()> news);

  ssize_t read(kj::ArrayPtr<const iovec> pieces) override;
  ssize_t write(kj::ArrayPtr<const iovec> pieces) override;
  void endSending() override;
  void endReceiving() override;
  bool peerGone() override { return hungUp; }
  void keepLittle() override;

 private:
  kj::Promise<void> watchRead();
  kj::Promise<void> watchWrite();

  kj::AutoCloseFd socket;
  int flags;  // of each call: RWF_NOWAIT, or 0 where the kernel has none for sockets
  kj::UnixEventPort::FdObserver observer;
  bool hungUp = false;
  kj::Function<void()> news;
  kj::Promise<void> reading;
  kj::Promise<void> writing;
  kj::Promise<void> hanging;
};

}  // namespace troupe::vsock
