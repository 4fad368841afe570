// What the guest gets: answers, news of ends and credit, and the bytes of sockets, read straight
// into the driver's buffers.
#include <kj/debug.h>

#include <cerrno>

#include "devices/vsock/switchboard.h"

namespace troupe::vsock {

namespace {

using State = Stream::State;

constexpr uint32_t BYTES_PER_VISIT = 64 << 10;  // of one stream, then the next has its turn

}  // namespace

PacketHeader Switchboard::headerTo(const StreamKey& key, uint16_t op) const {
  PacketHeader header = {};
  header.sourceCid = key.peerCid;
  header.destinationCid = guestCid;
  header.sourcePort = key.peerPort;
  header.destinationPort = key.guestPort;
  header.type = TYPE_STREAM;
  header.op = op;
  return header;
}

void Switchboard::serveReceive() {
  starved = false;
  KJ_IF_MAYBE (to, buffers) {
    to->beginTurn();
    while (resetCount > 0 && to->ready()) {
      Reset& reset = resets[firstReset];
      auto header = headerTo(reset.key, OP_RST);
      header.type = reset.type;
      to->send(header);
      firstReset = (firstReset + 1) % MOST_RESETS;
      --resetCount;
    }
    for (size_t visits = guestWork.size(); visits > 0 && !starved; visits--) {
      uint16_t slot = guestWork.take();
      if (deliver(table.at(slot))) guestWork.add(slot);
    }
    starved |= resetCount > 0;
  } else {
    starved = true;
  }
}

// False when there is no buffer for it.
bool Switchboard::send(Stream& stream, uint16_t op, uint32_t flags) {
  auto& to = KJ_ASSERT_NONNULL(buffers);
  if (!to.ready()) {
    starved = true;
    return false;
  }
  auto header = headerTo(stream.key, op);
  header.flags = flags;
  stream.describe(header);
  to.send(header);
  return true;
}

// Gives the guest what there is for it. True when there is more.
bool Switchboard::deliver(Stream& stream) {
  switch (stream.state) {
    case State::REQUESTED:
      if (!stream.requestSent) stream.requestSent = send(stream, OP_REQUEST);
      return !stream.requestSent;
    case State::DOOMED:
      if (!send(stream, OP_RST)) return true;
      finish(stream);
      return false;
    case State::ESTABLISHED:
    case State::LEAVING:
      break;
    default:
      return false;
  }
  if (stream.owesResponse) {
    if (!send(stream, OP_RESPONSE)) return true;
    stream.owesResponse = false;
  }
  bool more = stream.state == State::ESTABLISHED && deliverData(stream);
  if (starved || !deliverEnd(stream)) return true;
  if (stream.owesCredit && !send(stream, OP_CREDIT_UPDATE)) return true;
  if (stream.owesCreditRequest) {
    if (!send(stream, OP_CREDIT_REQUEST)) return true;
    stream.owesCreditRequest = false;
  }
  return more;
}

bool Switchboard::deliverData(Stream& stream) {
  auto& to = KJ_ASSERT_NONNULL(buffers);
  uint32_t delivered = 0;
  while (stream.socketReady && !stream.hostEnded && !stream.guestRefuses) {
    if (delivered >= BYTES_PER_VISIT) return true;
    uint32_t most = kj::min(stream.maySend(), BYTES_PER_VISIT);
    if (most == 0) {
      if (!stream.creditAsked && stream.deadline == 0) wait(stream, CREDIT_TICKS);
      return false;
    }
    auto room = to.room(most);
    if (room.size() == 0) {
      starved = true;
      return true;
    }
    ssize_t bytes = stream.socket->read(room);
    if (bytes == -EAGAIN) {
      stream.socketReady = false;
    } else if (bytes <= 0) {
      stream.hostEnded = true;
      stream.hostRefuses |= bytes < 0;
    } else {
      auto header = headerTo(stream.key, OP_RW);
      stream.describe(header);
      to.sendFilled(header, uint32_t(bytes));
      stream.countSent(uint32_t(bytes));
      delivered += uint32_t(bytes);
    }
  }
  return false;
}

// Tells the guest which ways the host has closed. False when there is no buffer for that.
bool Switchboard::deliverEnd(Stream& stream) {
  if (stream.state == State::LEAVING) return true;
  // Bytes that wait come first, so the end of all is looked for behind the end of reading.
  bool reads = !stream.hostEnded && !stream.guestRefuses;
  if (!reads && stream.socket->peerGone()) stream.hostEnded = stream.hostRefuses = true;
  uint32_t flags =
      (stream.hostEnded ? SHUTDOWN_SEND : 0) | (stream.hostRefuses ? SHUTDOWN_RECEIVE : 0);
  if ((flags & ~stream.shutdownSent) == 0) return true;
  if (!send(stream, OP_SHUTDOWN, flags)) return false;
  stream.shutdownSent = flags;
  if (flags == SHUTDOWN_BOTH) {
    stream.state = State::LEAVING;
    stream.socket = nullptr;
    wait(stream, LEAVE_TICKS);
  }
  return true;
}

}  // namespace troupe::vsock
