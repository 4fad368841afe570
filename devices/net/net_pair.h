#pragma once

#include <kj/common.h>
#include <kj/memory.h>

#include "devices/net/backend.h"
#include "devices/net/pair_rules.h"
#include "devices/net/receive_ring.h"
#include "devices/net/transmit_ring.h"

namespace troupe::net {

// One queue pair as its thread gets it, for as long as the driver uses it. Borrowed. A queue the
// driver did not enable has no ring.
struct PairWork {
  struct Queue {
    virtio::Virtqueue* ring;
    int kick;
    int call;
  };
  Queue receive;
  Queue transmit;
  uint64_t features;
  SharedRules* rules;
  uint64_t activation;  // of the device, from 1 on: the rings are other ones with each
};

// Serves the two rings of one queue pair, never waiting. Belongs to one thread.
class NetPair {
 public:
  // Borrowed.
  NetPair(const NetSettings& settings, Backend& backend);
  KJ_DISALLOW_COPY(NetPair);

  // In the same activation it goes on with what it had in hand: frames that wait for the host or
  // for buffers, and buffers that wait for frames.
  void begin(const PairWork& work);

  // A bounded number of frames in each direction.
  void turn();

  // Whether a turn() would find something to do, as far as memory tells.
  bool hasWork() const;
  // Asks the host; whether there was something to do, which then is done.
  bool look();

  // What to sleep on: prepareToSleep() has the driver notify where that is awaited. After it, look
  // at hasWork() again; after the sleep, or instead of it, call awake().
  struct Waits {
    bool receiveKick;
    bool transmitKick;
    bool input;
    bool room;         // of the host
    uint64_t limitNs;  // 0: for as long as it takes
  };
  Waits prepareToSleep();
  void awake();

  // The driver broke a rule: nothing is served any more.
  bool isBroken() const;
  // The host's end is closed: frames of the driver are dropped.
  bool isGone() const { return gone; }
  // poll() says so.
  void hostIsGone();

 private:
  Waits waits() const;
  bool isOpen() const { return !gone && rules.linkUp; }
  bool isReplayed() const { return backend.inputs() != nullptr && backend.inputs()->isReplaying(); }
  void goOn();
  void transmitTurn();
  void receiveTurn();

  const NetSettings& settings;
  Backend& backend;
  bool gone = false;

  PairWork work{};
  NetRules rules;
  uint32_t rulesSeen = 0;
  kj::Maybe<kj::Own<ReceiveRing>> receive;
  kj::Maybe<kj::Own<TransmitRing>> transmit;
  ReceiveRing::State receiving = ReceiveRing::State::MORE;
  bool hostIsFull = false;
};

}  // namespace troupe::net
