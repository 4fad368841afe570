#include "devices/console/transmit_queue.h"

#include <kj/debug.h>
#include <unistd.h>

#include "devices/console/polled_fd.h"

namespace troupe::console {

namespace {

// Work between two looks for other events. One chain can describe many times all of guest RAM, so
// both the chains and their bytes are counted.
constexpr size_t COPY_SIZE = 16384;
constexpr uint32_t COPIES_PER_TURN = 16;
constexpr uint32_t CHAINS_PER_TURN = 64;

}  // namespace

TransmitQueue::TransmitQueue(kj::UnixEventPort& events, virtio::ActiveQueue activeQueue,
                             OutputLog& log)
    : queue(kj::mv(activeQueue)),
      log(log),
      timer(events.getTimer()),
      kick(events, queue.kick),
      copy(kj::heapArray<kj::byte>(COPY_SIZE)) {}

kj::Promise<void> TransmitQueue::run() {
  auto& ring = *queue.ring;
  ring.disableNotifications();
  auto outcome = serveSome();
  publish();
  switch (outcome) {
    case Outcome::BROKEN:
      return kj::READY_NOW;
    case Outcome::CONGESTED:
      return log.whenClear().then([this]() { return run(); });
    case Outcome::EMPTY:
      ring.enableNotifications();
      if (!ring.hasWork()) return kick.wait().then([this]() { return run(); });
      break;
    case Outcome::MORE:
      break;
  }
  return nextTurn(timer).then([this]() { return run(); });
}

void TransmitQueue::serveOnce() {
  serveSome();
  publish();
}

TransmitQueue::Outcome TransmitQueue::serveSome() {
  auto& ring = *queue.ring;
  uint32_t copies = 0;
  uint32_t chains = 0;
  while (copies < COPIES_PER_TURN && chains < CHAINS_PER_TURN) {
    if (log.congested()) return Outcome::CONGESTED;
    if (current == nullptr) current = ring.pop();
    if (current == nullptr) return ring.broken() ? Outcome::BROKEN : Outcome::EMPTY;
    ++copies;
    if (copySome()) ++chains;
  }
  return Outcome::MORE;
}

// Copies the next piece of the current chain; true when that was its end and it is returned.
bool TransmitQueue::copySome() {
  auto& chain = KJ_ASSERT_NONNULL(current);
  size_t size = kj::min(chain.readableBytes(), copy.size());
  auto bytes = copy.slice(0, size);
  if (size > 0 && chain.readBytes(bytes)) log.write(bytes);
  if (chain.readableBytes() > 0) return false;
  queue.ring->push(kj::mv(chain), 0);
  current = nullptr;
  return true;
}

void TransmitQueue::publish() {
  if (!queue.ring->publish()) return;
  uint64_t one = 1;
  ssize_t written = ::write(queue.call, &one, sizeof(one));
  (void)written;  // EAGAIN: the count is full, so an interrupt is pending anyway
}

}  // namespace troupe::console
