// The host's side of the streams: who connects, who is asked, what is written.
#include <kj/debug.h>

#include <cerrno>

#include "devices/vsock/switchboard.h"

namespace troupe::vsock {

namespace {

using State = Stream::State;

constexpr uint32_t MOST_ASKED = 32;  // attempts at a time; each costs `troupe` an fd
constexpr size_t STEPS_PER_TURN = 64;

}  // namespace

Stream& Switchboard::greet(kj::Own<HostSocket> socket) {
  Stream& stream = table.add(State::GREETING);
  stream.socket = kj::mv(socket);
  stream.saysOk = true;
  wait(stream, ANSWER_TICKS);
  ready(stream);
  return stream;
}

Stream& Switchboard::forward(kj::Own<HostSocket> socket, uint32_t guestPort) {
  Stream& stream = table.add(State::GREETING);
  stream.socket = kj::mv(socket);
  request(stream, guestPort);
  return stream;
}

Stream& Switchboard::offer(kj::Own<HostSocket> socket, const StreamKey& key, kj::Own<Offer> offer) {
  Stream& stream = table.add(State::REQUESTED);
  stream.socket = kj::mv(socket);
  stream.offer = kj::mv(offer);
  table.bind(stream, key);
  wait(stream, ANSWER_TICKS);
  guestWork.add(stream.slot);
  return stream;
}

// Asks the guest for a stream to its port, from a port of ours that is free.
void Switchboard::request(Stream& stream, uint32_t guestPort) {
  StreamKey key = {HOST_CID, 0, guestPort};
  do {
    key.peerPort = nextPort;
    nextPort = nextPort == LAST_CLIENT_PORT ? FIRST_CLIENT_PORT : nextPort + 1;
  } while (table.find(key) != nullptr);
  table.bind(stream, key);
  stream.state = State::REQUESTED;
  wait(stream, ANSWER_TICKS);
  guestWork.add(stream.slot);
}

void Switchboard::startAsking() {
  while (asked < MOST_ASKED && !toAsk.empty()) {
    Stream& stream = table.at(toAsk.take());
    bool waits = stream.state == State::ASKING && stream.attempt.get() == nullptr;
    if (!waits) continue;
    stream.attempt =
        host.connect(stream, stream.key.peerCid, stream.key.peerPort, stream.key.guestPort);
    ++asked;
    if (stream.attempt->over()) hostWork.add(stream.slot);
  }
}

void Switchboard::serveHost() {
  for (size_t steps = kj::min(hostWork.size(), STEPS_PER_TURN); steps > 0; steps--)
    step(table.at(hostWork.take()));
}

void Switchboard::step(Stream& stream) {
  switch (stream.state) {
    case State::GREETING:
      return readLine(stream);
    case State::ASKING:
      return takeAnswer(stream);
    case State::REQUESTED:
      if (!stream.socket->peerGone()) return;
      return stream.requestSent ? doom(stream) : finish(stream);
    case State::ESTABLISHED:
      flush(stream);
      guestWork.add(stream.slot);
      return;
    case State::DRAINING:
      flush(stream);
      if (stream.outgoing.size() == 0) finish(stream);
      return;
    case State::FREE:
    case State::LEAVING:
    case State::DOOMED:
      return;
  }
}

// Byte by byte: what stands behind the line is the guest's.
void Switchboard::readLine(Stream& stream) {
  for (;;) {
    char c;
    iovec piece{&c, 1};
    ssize_t result = stream.socket->read(kj::arrayPtr(&piece, 1));
    if (result == -EAGAIN) return;
    if (result <= 0) return finish(stream);
    if (c == '\n') break;
    if (stream.lineLength == LONGEST_CONNECT_LINE) return finish(stream);
    stream.line[stream.lineLength++] = c;
  }
  KJ_IF_MAYBE (port, parseConnectLine(kj::arrayPtr(stream.line, stream.lineLength))) {
    return request(stream, *port);
  }
  finish(stream);
}

void Switchboard::takeAnswer(Stream& stream) {
  if (stream.attempt.get() == nullptr || !stream.attempt->over()) return;
  auto socket = stream.attempt->take();
  --asked;
  stream.attempt = nullptr;
  if (!toAsk.empty()) startAsking();
  if (socket.get() == nullptr) return doom(stream);
  stream.socket = kj::mv(socket);
  stream.owesResponse = true;
  establish(stream);
}

void Switchboard::establish(Stream& stream) {
  waitNoMore(stream);
  stream.state = State::ESTABLISHED;
  if (stream.offer.get() != nullptr) {
    stream.wasOffered = true;
    stream.offer->accepted();
    stream.offer = {};
  }
  stream.socketReady = true;
  if (stream.littleInKernel) stream.socket->keepLittle();
  guestWork.add(stream.slot);
}

// Hands the socket what it takes of what the guest has sent, and then its end.
void Switchboard::flush(Stream& stream) {
  while (stream.outgoing.size() > 0) {
    iovec pieces[2];
    size_t count = stream.outgoing.oldest(kj::arrayPtr(pieces, 2));
    ssize_t written =
        stream.hostRefuses ? -EPIPE : stream.socket->write(kj::arrayPtr(pieces, count));
    if (written == -EAGAIN || written == 0) return;
    if (written < 0) {
      stream.hostRefuses = true;
      written = ssize_t(stream.outgoing.size());
    } else if (stream.state == State::DRAINING) {
      wait(stream, DRAIN_TICKS);
    }
    stream.outgoing.took(size_t(written));
    stream.countForwarded(uint32_t(written));
  }
  if (stream.guestEnded && !stream.endPassedOn) {
    stream.endPassedOn = true;
    stream.socket->endSending();
  }
}

}  // namespace troupe::vsock
