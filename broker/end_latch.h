#pragma once

#include <kj/async.h>
#include <kj/common.h>
#include <kj/string.h>

#include <atomic>

#include "broker/bus.h"
#include "broker/run_gate.h"
#include "protos/broker.capnp.h"

namespace troupe::broker {

// How a VM, or one boot of its guest, ended.
struct MachineEnd {
  EndReason reason;
  kj::String detail;
  uint16_t device = 0;  // with DEVICE_LOST
  uint32_t boot = 0;    // which one ended: the first is 0; filled in by the latch
};

// Takes the first report of an end, holds the gate and tells the main loop. Later reports are
// consequences of the first and are dropped, until forget(): a guest that ended can be started
// anew. A device or host that failed stays so: such a report is kept until somebody has seen it.
class EndLatch {
 public:
  EndLatch(Mailbox& mailbox, RunGate& gate);
  KJ_DISALLOW_COPY(EndLatch);

  // Any thread. The gate is held when this returns.
  void report(MachineEnd end);

  // What follows is the main thread's.

  // Whether there is a report that whenReported() has or would resolve with.
  bool reported() const { return current != nullptr; }

  // Resolves with the report, for every caller; it is valid until forget().
  kj::Promise<const MachineEnd*> whenReported();

  // The guest is started anew, which is the next boot. If something else than the guest has ended
  // meanwhile, that is reported now, and the gate stays held.
  void forget();

 private:
  void take(MachineEnd end);
  void arm();

  Mailbox& mailbox;
  RunGate& gate;
  std::atomic<bool> isReported{false};
  uint32_t boot = 0;
  kj::Maybe<MachineEnd> current;
  kj::Maybe<MachineEnd> trouble;  // came after `current`
  kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  kj::ForkedPromise<void> told = nullptr;
};

}  // namespace troupe::broker
