#include "devices/console/receive_ring.h"

namespace troupe::console {

namespace {

// Work between two looks for other events: buffers of one byte, or of none, are allowed.
constexpr uint32_t CHAINS_PER_TURN = 64;

}  // namespace

ReceiveRing::Outcome ReceiveRing::serve() {
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

}  // namespace troupe::console
