#include "broker/loop_mailbox.h"

#include <kj/debug.h>
#include <unistd.h>

#include <cerrno>

namespace troupe::broker {

LoopMailbox::LoopMailbox(kj::UnixEventPort& events, kj::AutoCloseFd fd)
    : eventFd(kj::mv(fd)), observer(events, eventFd, kj::UnixEventPort::FdObserver::OBSERVE_READ) {}

void LoopMailbox::post(kj::Function<void()> action) {
  bool first;
  {
    std::lock_guard<std::mutex> lock(mutex);
    first = queue.empty();
    queue.add(kj::mv(action));
  }
  // Whoever finds the queue empty rings; the loop takes all that has gathered.
  if (!first) return;
  uint64_t one = 1;
  ssize_t written;
  do {
    written = ::write(eventFd, &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
}

kj::Promise<void> LoopMailbox::serve() {
  // Arm before looking: KJ watches edges, and what was posted earlier made its edge already.
  auto readable = observer.whenBecomesReadable();
  runAll();
  return readable.then([this]() { return serve(); });
}

void LoopMailbox::runAll() {
  // Emptying the eventfd before taking the queue: a post in between rings again.
  uint64_t count;
  ssize_t got;
  do {
    got = ::read(eventFd, &count, sizeof(count));
  } while (got < 0 && errno == EINTR);

  kj::Vector<kj::Function<void()>> actions;
  {
    std::lock_guard<std::mutex> lock(mutex);
    actions = kj::mv(queue);
    queue = kj::Vector<kj::Function<void()>>();
  }
  for (auto& action : actions)
    action();
}

}  // namespace troupe::broker
