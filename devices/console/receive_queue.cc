#include "devices/console/receive_queue.h"

#include <unistd.h>

#include "devices/console/polled_fd.h"

namespace troupe::console {

namespace {

// Work between two looks for other events: buffers of one byte, or of none, are allowed.
constexpr uint32_t CHAINS_PER_TURN = 64;

}  // namespace

ReceiveQueue::ReceiveQueue(kj::UnixEventPort& events, virtio::ActiveQueue activeQueue,
                           InputQueue& input)
    : queue(kj::mv(activeQueue)),
      input(input),
      timer(events.getTimer()),
      kick(events, queue.kick) {}

kj::Promise<void> ReceiveQueue::run() {
  auto& ring = *queue.ring;
  // New buffers are of interest only while input waits for one.
  ring.disableNotifications();
  auto outcome = serveSome();
  publish();
  switch (outcome) {
    case Outcome::BROKEN:
      return kj::READY_NOW;
    case Outcome::NO_INPUT:
      return input.whenInput().then([this]() { return run(); });
    case Outcome::NO_BUFFER:
      ring.enableNotifications();
      if (!ring.hasWork()) return kick.wait().then([this]() { return run(); });
      break;
    case Outcome::MORE:
      break;
  }
  return nextTurn(timer).then([this]() { return run(); });
}

ReceiveQueue::Outcome ReceiveQueue::serveSome() {
  auto& ring = *queue.ring;
  for (uint32_t chains = 0; chains < CHAINS_PER_TURN; ++chains) {
    auto waiting = input.waiting();
    if (waiting.size() == 0) return Outcome::NO_INPUT;
    KJ_IF_MAYBE (chain, ring.pop()) {
      uint32_t size = kj::min(waiting.size(), chain->writableBytes());
      if (size > 0 && chain->writeBytes(waiting.slice(0, size))) input.took(size);
      ring.push(kj::mv(*chain), size);
    } else {
      return ring.broken() ? Outcome::BROKEN : Outcome::NO_BUFFER;
    }
  }
  return Outcome::MORE;
}

void ReceiveQueue::publish() {
  if (!queue.ring->publish()) return;
  uint64_t one = 1;
  ssize_t written = ::write(queue.call, &one, sizeof(one));
  (void)written;  // EAGAIN: the count is full, so an interrupt is pending anyway
}

}  // namespace troupe::console
