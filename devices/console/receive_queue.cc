#include "devices/console/receive_queue.h"

#include <unistd.h>

#include "devices/console/polled_fd.h"

namespace troupe::console {

ReceiveQueue::ReceiveQueue(kj::UnixEventPort& events, virtio::ActiveQueue activeQueue,
                           InputQueue& input)
    : queue(kj::mv(activeQueue)),
      requests(*queue.ring, input),
      input(input),
      timer(events.getTimer()),
      kick(events, queue.kick) {}

kj::Promise<void> ReceiveQueue::run() {
  auto& ring = *queue.ring;
  // New buffers are of interest only while input waits for one.
  ring.disableNotifications();
  auto outcome = requests.serve();
  publish();
  switch (outcome) {
    case ReceiveRing::Outcome::BROKEN:
      return kj::READY_NOW;
    case ReceiveRing::Outcome::NO_INPUT:
      return input.whenInput().then([this]() { return run(); });
    case ReceiveRing::Outcome::NO_BUFFER:
      ring.enableNotifications();
      if (!ring.hasWork()) return kick.wait().then([this]() { return run(); });
      break;
    case ReceiveRing::Outcome::MORE:
      break;
  }
  return nextTurn(timer).then([this]() { return run(); });
}

void ReceiveQueue::publish() {
  if (!queue.ring->publish()) return;
  uint64_t one = 1;
  ssize_t written = ::write(queue.call, &one, sizeof(one));
  (void)written;  // EAGAIN: the count is full, so an interrupt is pending anyway
}

}  // namespace troupe::console
