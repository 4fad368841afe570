#include "devices/console/transmit_queue.h"

#include <unistd.h>

#include "devices/console/polled_fd.h"

namespace troupe::console {

TransmitQueue::TransmitQueue(kj::UnixEventPort& events, virtio::ActiveQueue activeQueue,
                             OutputLog& log)
    : queue(kj::mv(activeQueue)),
      requests(*queue.ring, log),
      log(log),
      timer(events.getTimer()),
      kick(events, queue.kick) {}

kj::Promise<void> TransmitQueue::run() {
  auto& ring = *queue.ring;
  ring.disableNotifications();
  auto outcome = requests.serve();
  publish();
  switch (outcome) {
    case TransmitRing::Outcome::BROKEN:
      return kj::READY_NOW;
    case TransmitRing::Outcome::CONGESTED:
      return log.whenClear().then([this]() { return run(); });
    case TransmitRing::Outcome::EMPTY:
      ring.enableNotifications();
      if (!ring.hasWork()) return kick.wait().then([this]() { return run(); });
      break;
    case TransmitRing::Outcome::MORE:
      break;
  }
  return nextTurn(timer).then([this]() { return run(); });
}

void TransmitQueue::serveOnce() {
  requests.serve();
  publish();
}

void TransmitQueue::publish() {
  if (!queue.ring->publish()) return;
  uint64_t one = 1;
  ssize_t written = ::write(queue.call, &one, sizeof(one));
  (void)written;  // EAGAIN: the count is full, so an interrupt is pending anyway
}

}  // namespace troupe::console
