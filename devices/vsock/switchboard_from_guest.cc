// What the driver sends (§5.10.6): each packet is checked against the stream it names, or refused.
#include <kj/debug.h>

#include <cerrno>

#include "devices/vsock/switchboard.h"
#include "tests/fuzz/planted.h"

namespace troupe::vsock {

namespace {

using fuzz::Bug;
using fuzz::isPlanted;
using State = Stream::State;

// Payload of one turn; then sockets and the broker have theirs.
constexpr uint64_t BYTES_PER_TURN = 1 << 20;
constexpr size_t PIECES_PER_WRITE = 64;  // drivers use two

constexpr char OK_WORD[] = "OK ";

// Nobody can be there: not a cid, or a reserved one that is not the host's (§5.10.4).
bool isNobody(uint64_t cid) {
  return cid < HOST_CID || cid > LAST_GUEST_CID;
}

// The first `bytes` readable bytes of `chain`, as far as there is room for pieces.
size_t firstPieces(const virtio::Chain& chain, uint32_t bytes, kj::ArrayPtr<iovec> pieces) {
  size_t count = 0;
  for (const iovec& piece : chain.readable()) {
    if (bytes == 0 || count == pieces.size()) break;
    size_t size = kj::min(piece.iov_len, size_t(bytes));
    pieces[count++] = iovec{piece.iov_base, size};
    bytes -= size;
  }
  return count;
}

}  // namespace

void Switchboard::serveTransmit() {
  if (rings.transmit == nullptr) return;
  uint64_t bytes = 0;
  while (bytes < BYTES_PER_TURN && resetCount < MOST_RESETS) {
    KJ_IF_MAYBE (chain, rings.transmit->pop()) {
      bytes += receive(*chain);
      rings.transmit->push(kj::mv(*chain), 0);
    } else {
      return;
    }
  }
}

// One packet; how many bytes it carried. Each needs one place among the resets at most.
uint32_t Switchboard::receive(virtio::Chain& chain) {
  PacketHeader header;  // a copy: the guest cannot change it after the checks
  if (!chain.read(header)) return 0;
  // Nobody to answer: whoever this says it is from is not at the other end.
  if (header.sourceCid != guestCid) return 0;
  // Of a packet that processes keep dying of, only this much is looked at: the streams that the
  // guest had are gone, and the one it was about to begin is refused.
  if (chain.isDeadly()) rings.transmit->countError();
  if (chain.isDeadly() || header.type != TYPE_STREAM) {
    refuse(header);
    return 0;
  }
  auto* stream = table.find({header.destinationCid, header.destinationPort, header.sourcePort});
  if (stream == nullptr) {
    receiveForNone(header);
    return 0;
  }
  uint64_t before = chain.readableBytes();
  receiveFor(*stream, header, chain);
  return uint32_t(before - chain.readableBytes());
}

void Switchboard::receiveForNone(const PacketHeader& header) {
  if (header.op != OP_REQUEST) return refuse(header);
  if (isNobody(header.destinationCid) || table.full()) return refuse(header);
  Stream& stream = table.add(State::ASKING);
  table.bind(stream, {header.destinationCid, header.destinationPort, header.sourcePort});
  stream.hear(header.bufferSize, header.forwarded);
  wait(stream, ANSWER_TICKS);
  toAsk.add(stream.slot);
}

void Switchboard::receiveFor(Stream& stream, const PacketHeader& header, virtio::Chain& chain) {
  if (header.op == OP_RST) return release(stream);
  // It is being told already.
  if (stream.state == State::DOOMED) return;
  stream.hear(header.bufferSize, header.forwarded);
  guestWork.add(stream.slot);
  if (stream.state == State::LEAVING) wait(stream, LEAVE_TICKS);
  if (stream.state == State::ESTABLISHED && stream.maySend() > 0) waitNoMore(stream);
  bool open = stream.state == State::ESTABLISHED || stream.state == State::LEAVING;
  switch (header.op) {
    case OP_RESPONSE:
      if (stream.state != State::REQUESTED || !stream.requestSent) break;
      return receiveResponse(stream);
    case OP_RW:
      if (!open && !isPlanted(Bug::EARLY_DATA)) break;
      return receiveData(stream, header, chain);
    case OP_SHUTDOWN:
      if (!open) break;
      return receiveShutdown(stream, header);
    case OP_CREDIT_UPDATE:
      if (!open) break;
      return;
    case OP_CREDIT_REQUEST:
      if (!open) break;
      stream.owesCredit = true;
      return;
    default:  // REQUEST too: the ports are taken
      break;
  }
  abort(stream, header);
}

void Switchboard::receiveData(Stream& stream, const PacketHeader& header, virtio::Chain& chain) {
  uint32_t bytes = header.length;
  bool believed = isPlanted(Bug::CREDIT_OVERRUN) || stream.mayReceive(bytes);
  if (bytes > chain.readableBytes() || !believed || stream.guestEnded) {
    return abort(stream, header);
  }
  stream.countReceived(bytes);
  // Of a stream whose host is gone the guest may not know yet.
  if (stream.state == State::LEAVING || stream.hostRefuses) {
    chain.advanceReadable(bytes);
    stream.countForwarded(bytes);
    return;
  }
  uint32_t written = stream.outgoing.size() > 0 ? 0 : writeThrough(stream, chain, bytes);
  if (!isPlanted(Bug::CREDIT_FORGOTTEN)) stream.countForwarded(written);
  if (stream.hostRefuses) {
    chain.advanceReadable(bytes - written);
    stream.countForwarded(bytes - written);
    return;
  }
  if (written < bytes) stream.outgoing.append(chain, bytes - written);
}

// Hands the socket what it takes at once, straight from guest memory.
uint32_t Switchboard::writeThrough(Stream& stream, virtio::Chain& chain, uint32_t bytes) {
  uint32_t written = 0;
  while (written < bytes) {
    iovec pieces[PIECES_PER_WRITE];
    size_t count = firstPieces(chain, bytes - written, kj::arrayPtr(pieces, PIECES_PER_WRITE));
    ssize_t result = stream.socket->write(kj::arrayPtr(pieces, count));
    if (result == -EAGAIN || result == 0) break;
    if (result < 0) {
      stream.hostRefuses = true;
      break;
    }
    chain.advanceReadable(result);
    written += uint32_t(result);
  }
  return written;
}

void Switchboard::receiveShutdown(Stream& stream, const PacketHeader& header) {
  if (header.flags & SHUTDOWN_SEND) stream.guestEnded = true;
  if ((header.flags & SHUTDOWN_RECEIVE) && !stream.guestRefuses) {
    stream.guestRefuses = true;
    if (stream.socket.get() != nullptr) stream.socket->endReceiving();
  }
  if (stream.guestEnded && stream.guestRefuses) {
    refuse(header);  // confirms it (§5.10.6.5)
    return release(stream);
  }
  hostWork.add(stream.slot);
}

void Switchboard::receiveResponse(Stream& stream) {
  establish(stream);
  if (!stream.saysOk) return;
  auto word = kj::str(OK_WORD, stream.key.peerPort, "\n");
  iovec piece{word.begin(), word.size()};
  ssize_t written = stream.socket->write(kj::arrayPtr(&piece, 1));
  // Nothing was written to it before, so it has room unless the client is gone.
  if (written != ssize_t(word.size())) stream.hostRefuses = true;
}

void Switchboard::refuse(const PacketHeader& header) {
  if (header.op == OP_RST || resetCount == MOST_RESETS) return;
  resets[(firstReset + resetCount++) % MOST_RESETS] = {
      {header.destinationCid, header.destinationPort, header.sourcePort}, header.type};
}

// The guest broke the rules of this stream.
void Switchboard::abort(Stream& stream, const PacketHeader& header) {
  finish(stream);
  refuse(header);
}

}  // namespace troupe::vsock
