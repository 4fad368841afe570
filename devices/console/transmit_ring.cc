#include "devices/console/transmit_ring.h"

#include <kj/debug.h>

namespace troupe::console {

namespace {

// Work between two looks for other events. One chain can describe many times all of guest RAM, so
// both the chains and their bytes are counted.
constexpr size_t COPY_SIZE = 16384;
constexpr uint32_t COPIES_PER_TURN = 16;
constexpr uint32_t CHAINS_PER_TURN = 64;

}  // namespace

TransmitRing::TransmitRing(virtio::Virtqueue& ring, OutputLog& log)
    : ring(ring), log(log), copy(kj::heapArray<kj::byte>(COPY_SIZE)) {}

TransmitRing::Outcome TransmitRing::serve() {
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
bool TransmitRing::copySome() {
  auto& chain = KJ_ASSERT_NONNULL(current);
  size_t size = kj::min(chain.readableBytes(), copy.size());
  auto bytes = copy.slice(0, size);
  if (size > 0 && chain.readBytes(bytes)) log.write(bytes);
  if (chain.readableBytes() > 0) return false;
  ring.push(kj::mv(chain), 0);
  current = nullptr;
  return true;
}

}  // namespace troupe::console
