#pragma once

#include <kj/async-unix.h>

namespace troupe::console {

// The driver's notifications of one queue, as an eventfd.
class Kick {
 public:
  // `eventFd` is borrowed and non-blocking.
  Kick(kj::UnixEventPort& events, int eventFd);

  // Resolves once the driver has notified the queue since the last time this resolved, and not
  // before other events had their turn.
  kj::Promise<void> wait();

 private:
  int eventFd;
  kj::Timer& timer;
  kj::UnixEventPort::FdObserver observer;
};

}  // namespace troupe::console
