#pragma once

#include <kj/async.h>
#include <kj/mutex.h>
#include <kj/string.h>

#include <atomic>

#include "broker/bus.h"
#include "protos/broker.capnp.h"

namespace troupe::broker {

// How a VM ended.
struct MachineEnd {
  EndReason reason;
  kj::String detail;
  uint16_t device = 0;  // with DEVICE_LOST
};

// Takes the first report of the VM's end and tells the main loop. Later reports are consequences of
// the first and are dropped.
class EndLatch {
 public:
  explicit EndLatch(Mailbox& mailbox);
  KJ_DISALLOW_COPY(EndLatch);

  // Any thread.
  void report(MachineEnd end);
  bool reported() const { return isReported.load(std::memory_order_acquire); }

  // Main thread. Resolves with the report, for every caller; it lives as long as this object.
  kj::Promise<const MachineEnd*> whenReported();

 private:
  Mailbox& mailbox;
  std::atomic<bool> isReported{false};
  MachineEnd end{};
  kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  kj::ForkedPromise<void> told = nullptr;
};

}  // namespace troupe::broker
