#include "devices/net/net_pair.h"

namespace troupe::net {

using Receiving = ReceiveRing::State;

namespace {

// How soon a replay is looked at again, which tells nobody when it goes on.
constexpr uint64_t REPLAY_NS = 100000;

}  // namespace

NetPair::NetPair(const NetSettings& settings, Backend& backend)
    : settings(settings), backend(backend), rules(settings.mac) {}

void NetPair::begin(const PairWork& newWork) {
  bool goesOn = newWork.activation == work.activation;
  work = newWork;
  rulesSeen = 0;
  receiving = Receiving::MORE;
  hostIsFull = false;
  if (goesOn) return;
  receive = nullptr;
  transmit = nullptr;
  if (work.receive.ring != nullptr) {
    receive = kj::heap<ReceiveRing>(*work.receive.ring, work.receive.call, backend, settings,
                                    work.features & virtio::NET_F_MRG_RXBUF);
  }
  if (work.transmit.ring != nullptr) {
    transmit = kj::heap<TransmitRing>(*work.transmit.ring, work.transmit.call, backend, settings,
                                      hostOffloads(work.features));
  }
}

void NetPair::turn() {
  if (isBroken()) return;
  work.rules->refresh(rules, rulesSeen);
  if (isReplayed()) goOn();
  transmitTurn();
  receiveTurn();
}

void NetPair::transmitTurn() {
  KJ_IF_MAYBE (ring, transmit) {
    // In a replay the ring knows which frames were dropped.
    if (isOpen() || isReplayed()) {
      auto outcome = (*ring)->turn();
      hostIsFull = outcome == Backend::Outcome::LATER;
      if (outcome == Backend::Outcome::GONE) hostIsGone();
    } else {
      (*ring)->drop();
    }
  }
}

void NetPair::receiveTurn() {
  if (gone) return;
  KJ_IF_MAYBE (ring, receive) {
    receiving = (*ring)->turn(rules, rulesSeen);
    if (receiving == Receiving::GONE) hostIsGone();
  }
}

void NetPair::hostIsGone() {
  if (gone) return;
  gone = true;
  if (backend.inputs() != nullptr) backend.inputs()->called({HostCall::Kind::GONE}, 0);
}

// In a replay: what the host does next comes under the rules of then.
void NetPair::goOn() {
  auto& inputs = *backend.inputs();
  KJ_IF_MAYBE (input, inputs.arrived()) {
    if (input->kind == HostCall::Kind::GONE) hostIsGone();
    bool isFrame = input->kind == HostCall::Kind::INPUT;
    if (isFrame && work.rules->recall(input->offset, rules)) rulesSeen = uint32_t(input->offset);
  }
}

bool NetPair::hasWork() const {
  if (isBroken()) return false;
  KJ_IF_MAYBE (ring, transmit) {
    if ((!isOpen() || !hostIsFull) && (*ring)->hasWork()) return true;
  }
  if (gone) return false;
  KJ_IF_MAYBE (ring, receive) {
    switch (receiving) {
      case Receiving::MORE:
        return true;
      case Receiving::NO_BUFFERS:
        return (*ring)->driverHasBuffers();
      case Receiving::NO_INPUT:
        return backend.hasInput();
      case Receiving::THROTTLED:
        return (*ring)->throttledNs() == 0;
      default:
        return false;
    }
  }
  return false;
}

bool NetPair::look() {
  if (gone || isBroken()) return false;
  if (hostIsFull) {
    transmitTurn();
    if (!hostIsFull) return true;
  }
  KJ_IF_MAYBE (ring, receive) {
    if (receiving != Receiving::NO_INPUT) return false;
    uint32_t before = (*ring)->taken();
    receiveTurn();
    return gone || (*ring)->taken() != before;
  }
  return false;
}

NetPair::Waits NetPair::prepareToSleep() {
  auto result = waits();
  if (result.receiveKick) work.receive.ring->enableNotifications();
  if (result.transmitKick) work.transmit.ring->enableNotifications();
  return result;
}

void NetPair::awake() {
  if (work.receive.ring != nullptr) work.receive.ring->disableNotifications();
  if (work.transmit.ring != nullptr) work.transmit.ring->disableNotifications();
}

NetPair::Waits NetPair::waits() const {
  Waits result{};
  if (isBroken()) return result;
  auto limit = [&](uint64_t ns) {
    if (ns > 0 && (result.limitNs == 0 || ns < result.limitNs)) result.limitNs = ns;
  };
  if (isReplayed()) limit(REPLAY_NS);
  KJ_IF_MAYBE (ring, transmit) {
    uint64_t throttledNs = (*ring)->throttledNs();
    limit(throttledNs);
    result.room = isOpen() && hostIsFull;
    result.transmitKick = !result.room && throttledNs == 0;
  }
  if (gone) return result;
  KJ_IF_MAYBE (ring, receive) {
    if (receiving == Receiving::THROTTLED) {
      limit(kj::max((*ring)->throttledNs(), 1ul));  // it may be over by now
    } else if (receiving == Receiving::NO_BUFFERS) {
      result.receiveKick = true;
      limit((*ring)->patienceNs());
    } else {
      result.input = true;
    }
  }
  return result;
}

bool NetPair::isBroken() const {
  if (receiving == Receiving::BROKEN) return true;
  bool receiveBroken = work.receive.ring != nullptr && work.receive.ring->broken();
  bool transmitBroken = work.transmit.ring != nullptr && work.transmit.ring->broken();
  return receiveBroken || transmitBroken;
}

}  // namespace troupe::net
