#pragma once

#include <kj/memory.h>

#include <cstdint>

#include "devices/vsock/connect_line.h"
#include "devices/vsock/host_side.h"
#include "devices/vsock/outgoing.h"
#include "devices/vsock/wire.h"

namespace troupe::vsock {

// What makes a stream one of its own, with the guest's cid, which all of them share.
struct StreamKey {
  uint64_t peerCid;
  uint32_t peerPort;
  uint32_t guestPort;

  bool operator==(const StreamKey& other) const {
    return peerCid == other.peerCid && peerPort == other.peerPort && guestPort == other.guestPort;
  }
  bool operator<(const StreamKey& other) const {
    if (peerPort != other.peerPort) return peerPort < other.peerPort;
    if (guestPort != other.guestPort) return guestPort < other.guestPort;
    return peerCid < other.peerCid;
  }
};

// One stream between the guest and a socket of the host: what is known of it, and its arithmetic.
// The rules are the switchboard's.
class Stream {
 public:
  enum class State {
    FREE,
    GREETING,   // a client of the hybrid socket that has not said which port it wants
    ASKING,     // the guest asked for it; nobody has answered yet
    REQUESTED,  // the host asked for it; the guest has not answered yet
    ESTABLISHED,
    LEAVING,   // the host has closed; the guest was told and has not confirmed
    DOOMED,    // the guest is to be told that it is over (RST), and then it is
    DRAINING,  // over for the guest; what it sent is still on its way to the reader
  };

  State state = State::FREE;
  uint16_t slot = 0;
  StreamKey key = {};
  bool named = false;  // the table finds it by its key
  kj::Own<HostSocket> socket;
  kj::Own<ConnectAttempt> attempt;
  kj::Own<Offer> offer;     // until the guest has answered it
  bool wasOffered = false;  // and was accepted
  Outgoing outgoing;
  uint32_t deadline = 0;  // tick; 0: none

  char line[LONGEST_CONNECT_LINE];  // with GREETING
  uint8_t lineLength = 0;
  bool saysOk = false;  // the client waits for "OK PORT"
  bool requestSent = false;

  // Packets the guest is owed.
  bool owesResponse = false;
  bool owesCredit = false;
  bool owesCreditRequest = false;
  bool creditAsked = false;  // and not given yet

  // Ends, each once and for good.
  bool hostEnded = false;     // the host sends no more
  bool hostRefuses = false;   // and takes no more
  bool guestEnded = false;    // the guest sends no more
  bool guestRefuses = false;  // and takes no more
  bool endPassedOn = false;   // the host's socket was told of guestEnded
  uint32_t shutdownSent = 0;  // flags the guest was told

  bool socketReady = false;     // it had news since it last gave EAGAIN
  bool littleInKernel = false;  // its socket's own buffer is to be cut down

  // Guest to host.
  uint32_t credit() const { return ourBuffer; }
  void grant(uint32_t bytes) {
    ourBuffer = bytes;
    outgoing = Outgoing(bytes);
  }
  // Whether the guest may send this much now.
  bool mayReceive(uint32_t bytes) const { return bytes <= ourBuffer - (received - forwarded); }
  void countReceived(uint32_t bytes) { received += bytes; }
  void countForwarded(uint32_t bytes) {
    forwarded += bytes;
    // Half of it, so that the guest is told before it has to wait, and not for each packet.
    if (forwarded - forwardedTold >= ourBuffer / 2) owesCredit = true;
  }

  // Host to guest. Numbers of the guest's: whatever they are, the answer is at most its buffer.
  void hear(uint32_t bufferSize, uint32_t forwardedByGuest) {
    guestBuffer = bufferSize;
    guestForwarded = forwardedByGuest;
    if (maySend() > 0) creditAsked = false;
  }
  uint32_t maySend() const {
    uint32_t underWay = sent - guestForwarded;  // modulo 2^32, as the counters are
    return underWay >= guestBuffer ? 0 : guestBuffer - underWay;
  }
  void countSent(uint32_t bytes) { sent += bytes; }

  // Fills in what every packet of the stream says.
  void describe(PacketHeader& header) {
    header.bufferSize = ourBuffer;
    header.forwarded = forwarded;
    forwardedTold = forwarded;
    owesCredit = false;
  }

 private:
  uint32_t ourBuffer = 0;
  uint32_t received = 0;       // from the guest
  uint32_t forwarded = 0;      // of it, to the host
  uint32_t forwardedTold = 0;  // as the guest knows
  uint32_t guestBuffer = 0;
  uint32_t guestForwarded = 0;
  uint32_t sent = 0;  // to the guest
};

}  // namespace troupe::vsock
