#include "devices/console/receive_ring.h"

#include "devices/virtio/queue_flight.h"

namespace troupe::console {

namespace {

// Work between two looks for other events: buffers of one byte, or of none, are allowed.
constexpr uint32_t CHAINS_PER_TURN = 64;

}  // namespace

bool ReceiveRing::isReplaying() const {
  const virtio::QueueFlight* flight = ring.flight();
  return flight != nullptr && flight->isReplaying();
}

// How many bytes there were for it.
uint32_t ReceiveRing::fillFromInput(virtio::Chain& chain) {
  uint64_t room = chain.writableBytes();
  uint32_t size = 0;
  for (auto waiting = input.waiting(); waiting.size() > 0; waiting = input.waiting()) {
    uint32_t part = kj::min(waiting.size(), chain.writableBytes());
    if (part == 0 || !chain.writeBytes(waiting.slice(0, part))) break;
    input.give(part);
    size += part;
  }
  if (virtio::QueueFlight* flight = ring.flight()) {
    flight->called(chain.head(), {HostCall::Kind::INPUT, 0, room}, size);
  }
  return size;
}

uint32_t ReceiveRing::fillFromRecording(virtio::Chain& chain) {
  auto bytes = ring.flight()->answer(chain.head()).data;
  uint64_t room = chain.writableBytes();
  uint32_t size = kj::min(bytes.size(), room);
  chain.writeBytes(bytes.slice(0, size));
  ring.flight()->called(chain.head(), {HostCall::Kind::INPUT, 0, room}, size);
  return size;
}

ReceiveRing::Outcome ReceiveRing::serve() {
  Outcome outcome = fill();
  input.settle(ring.publishedIndex(), ring.pushedIndex());
  return outcome;
}

ReceiveRing::Outcome ReceiveRing::fill() {
  for (uint32_t chains = 0; chains < CHAINS_PER_TURN; ++chains) {
    if (input.waiting().size() == 0 && !isReplaying()) return Outcome::NO_INPUT;
    KJ_IF_MAYBE (chain, ring.pop()) {
      if (chain->isDeadly()) {
        // A buffer that processes keep dying over goes back with nothing in it.
        ring.countError();
        ring.push(kj::mv(*chain), 0);
        continue;
      }
      uint32_t size = isReplaying() ? fillFromRecording(*chain) : fillFromInput(*chain);
      ring.push(kj::mv(*chain), size);
    } else {
      return ring.broken() ? Outcome::BROKEN : Outcome::NO_BUFFER;
    }
  }
  return Outcome::MORE;
}

}  // namespace troupe::console
