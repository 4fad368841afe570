#include "devices/console/kick.h"

#include <unistd.h>

#include "devices/console/polled_fd.h"

namespace troupe::console {

Kick::Kick(kj::UnixEventPort& events, int eventFd)
    : eventFd(eventFd),
      timer(events.getTimer()),
      observer(events, eventFd, kj::UnixEventPort::FdObserver::OBSERVE_READ) {}

kj::Promise<void> Kick::wait() {
  uint64_t count;
  if (::read(eventFd, &count, sizeof(count)) == sizeof(count)) return nextTurn(timer);
  return observer.whenBecomesReadable().then([this]() { return wait(); });
}

}  // namespace troupe::console
