#include "devices/console/polled_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <unistd.h>

namespace troupe::console {

PolledFd::PolledFd(kj::UnixEventPort& events, int fd)
    : events(events),
      fd(fd),
      observer(events, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE) {}

ssize_t PolledFd::read(kj::ArrayPtr<kj::byte> bytes) {
  ssize_t result;
  do {
    result = ::read(fd, bytes.begin(), bytes.size());
  } while (result < 0 && errno == EINTR);
  wasFull = result > 0 && static_cast<size_t>(result) == bytes.size();
  wasEmpty = result < 0 && errno == EAGAIN;
  return result < 0 ? -errno : result;
}

ssize_t PolledFd::write(kj::ArrayPtr<const kj::byte> bytes) {
  ssize_t result;
  do {
    result = ::write(fd, bytes.begin(), bytes.size());
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

kj::Promise<void> PolledFd::whenReadable() {
  if (wasEmpty) return observer.whenBecomesReadable();
  KJ_IF_MAYBE (atEnd, observer.atEndHint()) {
    // Less than asked for, and no end announced: the next byte or the end makes a new event.
    if (!*atEnd && !wasFull) return observer.whenBecomesReadable();
  }
  return nextTurn(events.getTimer());
}

void makeNonBlocking(int fd) {
  int flags;
  KJ_SYSCALL(flags = fcntl(fd, F_GETFL));
  KJ_SYSCALL(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

kj::Promise<void> nextTurn(kj::Timer& timer) {
  return timer.afterDelay(0 * kj::NANOSECONDS);
}

}  // namespace troupe::console
