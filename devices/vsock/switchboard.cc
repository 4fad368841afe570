// A turn, and how streams end. What the guest sends is in switchboard_from_guest.cc, what it gets
// in switchboard_to_guest.cc, the host's side in switchboard_host.cc.
#include "devices/vsock/switchboard.h"

namespace troupe::vsock {

namespace {

using State = Stream::State;

}  // namespace

Switchboard::Switchboard(uint64_t guestCid, HostSide& host, Rings rings, uint32_t& nextPort,
                         uint16_t slots, uint16_t roomy)
    : guestCid(guestCid),
      host(host),
      rings(rings),
      table(slots, roomy),
      hostWork(slots),
      guestWork(slots),
      toAsk(slots),
      nextPort(nextPort) {
  if (nextPort < FIRST_CLIENT_PORT || nextPort > LAST_CLIENT_PORT) nextPort = FIRST_CLIENT_PORT;
  if (rings.receive != nullptr) buffers.emplace(*rings.receive);
}

Switchboard::Turn Switchboard::serve() {
  serveEvent();
  if (settles()) return endTurn();
  if (rings.transmit != nullptr) rings.transmit->disableNotifications();
  if (rings.receive != nullptr) rings.receive->disableNotifications();
  serveTransmit();
  startAsking();
  serveHost();
  serveReceive();
  return endTurn();
}

Switchboard::Turn Switchboard::endTurn() {
  Turn turn = {};
  virtio::Virtqueue* each[QUEUES] = {rings.receive, rings.transmit, rings.event};
  for (uint16_t i = 0; i < QUEUES; i++) {
    if (each[i] == nullptr) continue;
    turn.interrupts[i] = each[i]->publish();
    turn.broken |= each[i]->broken();
  }

  // Notifications are asked for where they would lead to something.
  if (rings.event != nullptr && (owesEvent || isSettling)) {
    rings.event->enableNotifications();
    turn.more = !turn.broken && rings.event->hasWork();
  }
  if (isSettling) return turn;
  bool listens = rings.transmit != nullptr && resetCount < MOST_RESETS;
  if (listens) rings.transmit->enableNotifications();
  bool waits = rings.receive != nullptr && starved;
  if (waits) rings.receive->enableNotifications();
  turn.more |= !turn.broken &&
               ((listens && rings.transmit->hasWork()) || (waits && rings.receive->hasWork()) ||
                !hostWork.empty() || (!starved && !guestWork.empty()));
  return turn;
}

// The guest knows the stream no more. What it sent is still delivered.
void Switchboard::release(Stream& stream) {
  bool delivers =
      stream.outgoing.size() > 0 && !stream.hostRefuses && stream.socket.get() != nullptr;
  if (!delivers) return finish(stream);
  tellEnd(stream);
  table.unbind(stream);
  stream.state = State::DRAINING;
  stream.guestEnded = true;
  if (!stream.guestRefuses) stream.socket->endReceiving();
  stream.guestRefuses = true;
  wait(stream, DRAIN_TICKS);
  hostWork.add(stream.slot);
}

// Ends a stream that the guest knows: it has to be told first.
void Switchboard::doom(Stream& stream) {
  if (stream.attempt.get() != nullptr) --asked;
  stream.attempt = nullptr;
  stream.offer = nullptr;
  stream.socket = nullptr;
  stream.state = State::DOOMED;
  waitNoMore(stream);
  guestWork.add(stream.slot);
}

void Switchboard::finish(Stream& stream) {
  if (stream.attempt.get() != nullptr) --asked;
  waitNoMore(stream);
  tellEnd(stream);
  table.remove(stream);
}

// Its name may be given to another.
void Switchboard::tellEnd(Stream& stream) {
  if (stream.wasOffered && stream.named) {
    host.ended(stream.key.peerCid, stream.key.peerPort, stream.key.guestPort);
  }
  stream.wasOffered = false;
}

void Switchboard::wait(Stream& stream, uint32_t ticks) {
  if (stream.deadline == 0) ++timed;
  stream.deadline = now + ticks;
}

void Switchboard::waitNoMore(Stream& stream) {
  if (stream.deadline == 0) return;
  --timed;
  stream.deadline = 0;
}

kj::Maybe<Stream&> Switchboard::find(uint64_t slot) {
  if (slot >= table.slots()) return nullptr;
  Stream& stream = table.at(uint16_t(slot));
  if (stream.state == State::FREE) return nullptr;
  return stream;
}

void Switchboard::tick() {
  ++now;
  for (uint16_t slot = 0; timed > 0 && slot < table.slots(); slot++) {
    Stream& stream = table.at(slot);
    bool late = stream.deadline != 0 && int32_t(now - stream.deadline) >= 0;
    if (late) expire(stream);
  }
}

void Switchboard::expire(Stream& stream) {
  switch (stream.state) {
    case State::GREETING:
    case State::DRAINING:
      return finish(stream);
    case State::REQUESTED:
      if (!stream.requestSent) return finish(stream);
      return doom(stream);
    case State::ESTABLISHED:
      waitNoMore(stream);
      stream.owesCreditRequest = stream.creditAsked = true;
      guestWork.add(stream.slot);
      return;
    default:
      return doom(stream);
  }
}

void Switchboard::closeAll() {
  for (uint16_t slot = 0; slot < table.slots(); slot++) {
    Stream& stream = table.at(slot);
    if (stream.state != State::FREE) finish(stream);
  }
}

void Switchboard::transportReset() {
  closeAll();
  resetCount = 0;
  owesEvent = true;
  isSettling = rings.event != nullptr;
  settledAt = now + SETTLE_TICKS;
}

void Switchboard::serveEvent() {
  if (rings.event == nullptr || !(owesEvent || isSettling)) return;
  takeEventBuffers();
  Event event = {EVENT_TRANSPORT_RESET};
  auto bytes = kj::arrayPtr(reinterpret_cast<const kj::byte*>(&event), sizeof(event));
  size_t used = 0;
  while (owesEvent && used < eventBuffers.size()) {
    auto& chain = eventBuffers[used++];
    bool told = chain.writeBytes(bytes);
    rings.event->push(kj::mv(chain), told ? sizeof(event) : 0);
    if (told) owesEvent = false;
  }
  if (used == 0) return;
  buffersAwaited += used;
  kj::Vector<virtio::Chain> left(eventBuffers.size() - used);
  for (size_t i = used; i < eventBuffers.size(); i++)
    left.add(kj::mv(eventBuffers[i]));
  eventBuffers = kj::mv(left);
}

// All of them: only when there is none left does a driver tell of a new one.
void Switchboard::takeEventBuffers() {
  size_t givenBack = 0;
  for (;;) {
    KJ_IF_MAYBE (chain, rings.event->pop()) {
      if (buffersAwaited > 0) --buffersAwaited;
      if (chain->isDeadly()) {  // processes keep dying over it
        rings.event->countError();
        rings.event->push(kj::mv(*chain), 0);
        ++givenBack;
      } else {
        eventBuffers.add(kj::mv(*chain));
      }
    } else {
      break;
    }
  }
  buffersAwaited += givenBack;
}

// Whether the driver may still be at work on a transport reset.
bool Switchboard::settles() {
  bool isOver = (!owesEvent && buffersAwaited == 0) || int32_t(now - settledAt) >= 0;
  if (isOver) isSettling = false;
  return isSettling;
}

}  // namespace troupe::vsock
