#include "devices/console/queue_turns.h"

#include <unistd.h>

#include "devices/console/polled_fd.h"

namespace troupe::console {

QueueTurns::QueueTurns(kj::UnixEventPort& events, virtio::ActiveQueue activeQueue, Serve serve,
                       WhenHostIsReady whenHostIsReady, kj::Function<void()> told)
    : queue(kj::mv(activeQueue)),
      serve(kj::mv(serve)),
      whenHostIsReady(kj::mv(whenHostIsReady)),
      told(kj::mv(told)),
      timer(events.getTimer()),
      kick(events, queue.kick) {}

kj::Promise<void> QueueTurns::run() {
  auto& ring = *queue.ring;
  // What the driver adds is of interest only while it is what is waited for.
  ring.disableNotifications();
  switch (once()) {
    case Next::BROKEN:
      return kj::READY_NOW;
    case Next::HOST:
      return whenHostIsReady().then([this]() { return run(); });
    case Next::DRIVER:
      ring.enableNotifications();
      if (!ring.hasWork()) return kick.wait().then([this]() { return run(); });
      break;
    case Next::MORE:
      break;
  }
  return nextTurn(timer).then([this]() { return run(); });
}

QueueTurns::Next QueueTurns::once() {
  Next next = serve();
  if (queue.ring->publish()) {
    uint64_t one = 1;
    ssize_t written = ::write(queue.call, &one, sizeof(one));
    (void)written;  // EAGAIN: the count is full, so an interrupt is pending anyway
  }
  told();
  return next;
}

}  // namespace troupe::console
