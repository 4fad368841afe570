#include "devices/console/control_rings.h"

namespace troupe::console {

namespace {

// Work between two looks for other events.
constexpr uint32_t CHAINS_PER_TURN = 64;

}  // namespace

ControlTransmitRing::Outcome ControlTransmitRing::serve() {
  for (uint32_t chains = 0; chains < CHAINS_PER_TURN; ++chains) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      ControlMessage message;
      if (chain->isDeadly()) {
        ring.countError();  // processes keep dying of it: it says nothing
      } else if (chain->read(message)) {
        control.take(message);
      }
      ring.push(kj::mv(*chain), 0);
    } else {
      return ring.broken() ? Outcome::BROKEN : Outcome::EMPTY;
    }
  }
  return Outcome::MORE;
}

ControlReceiveRing::Outcome ControlReceiveRing::serve() {
  for (uint32_t chains = 0; chains < CHAINS_PER_TURN; ++chains) {
    if (!control.hasNext()) return Outcome::NO_MESSAGE;
    KJ_IF_MAYBE (chain, ring.pop()) {
      if (chain->isDeadly()) {
        ring.countError();
        ring.push(kj::mv(*chain), 0);
        continue;
      }
      kj::byte message[PortControl::LONGEST_MESSAGE];
      size_t size = control.next(kj::arrayPtr(message, sizeof(message)));
      if (!chain->writeBytes(kj::arrayPtr(message, size))) size = 0;
      ring.push(kj::mv(*chain), size);
    } else {
      return ring.broken() ? Outcome::BROKEN : Outcome::NO_BUFFER;
    }
  }
  return Outcome::MORE;
}

}  // namespace troupe::console
