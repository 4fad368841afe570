#include "devices/console/transmit_ring.h"

#include <kj/debug.h>

#include "devices/virtio/queue_flight.h"

namespace troupe::console {

namespace {

// Work between two looks for other events. One chain can describe many times all of guest RAM, so
// both the chains and their bytes are counted.
constexpr size_t COPY_SIZE = OutputLog::MOST_AT_ONCE;
constexpr uint32_t COPIES_PER_TURN = 16;
constexpr uint32_t CHAINS_PER_TURN = 64;

}  // namespace

TransmitRing::TransmitRing(virtio::Virtqueue& ring, OutputLog& log, uint64_t logged)
    : ring(ring), log(log), copy(kj::heapArray<kj::byte>(COPY_SIZE)), logged(logged) {}

TransmitRing::Outcome TransmitRing::serve() {
  Outcome outcome = take();
  // What is in the log of chains that the driver is about to be told of, and no more.
  log.told().note(ring.publishedIndex(), ring.pushedIndex(), log.end() - logged - copied);
  return outcome;
}

TransmitRing::Outcome TransmitRing::take() {
  uint32_t copies = 0;
  uint32_t chains = 0;
  while (copies < COPIES_PER_TURN && chains < CHAINS_PER_TURN) {
    if (log.congested()) return Outcome::CONGESTED;
    if (current == nullptr) current = ring.pop();
    if (current == nullptr) return ring.broken() ? Outcome::BROKEN : Outcome::EMPTY;
    ++copies;
    if (dropIfDeadly()) {
      ++chains;
      continue;
    }
    if (copySome()) ++chains;
  }
  return Outcome::MORE;
}

// What processes keep dying of is not printed, but for what an earlier one had copied by then.
bool TransmitRing::dropIfDeadly() {
  auto& chain = KJ_ASSERT_NONNULL(current);
  if (!chain.isDeadly()) return false;
  logged -= kj::min(logged, chain.readableBytes());
  ring.countError();
  ring.push(kj::mv(chain), 0);
  current = nullptr;
  return true;
}

// Copies the next piece of the current chain; true when that was its end and it is returned.
bool TransmitRing::copySome() {
  auto& chain = KJ_ASSERT_NONNULL(current);
  size_t size = kj::min(chain.readableBytes(), copy.size());
  auto bytes = copy.slice(0, size);
  if (!chain.isLeftBehind()) logged = 0;
  if (size > 0 && chain.readBytes(bytes)) {
    size_t known = kj::min(logged, size);
    log.write(bytes.slice(known, size));
    logged -= known;
    copied += size;
    if (virtio::QueueFlight* flight = ring.flight()) {
      iovec piece{bytes.begin(), bytes.size()};
      virtio::QueueFlight::Call call{HostCall::Kind::OUTPUT, 0, bytes.size()};
      call.outgoing = kj::arrayPtr(&piece, 1);
      flight->called(chain.head(), call, size);
    }
  }
  if (chain.readableBytes() > 0) return false;
  ring.push(kj::mv(chain), 0);
  current = nullptr;
  copied = 0;
  return true;
}

}  // namespace troupe::console
