#include "broker/end_latch.h"

namespace troupe::broker {
namespace {

bool isGuestsOwn(EndReason reason) {
  return reason != EndReason::DEVICE_LOST && reason != EndReason::FAILED;
}

}  // namespace

EndLatch::EndLatch(Mailbox& mailbox, RunGate& gate) : mailbox(mailbox), gate(gate) {
  arm();
}

void EndLatch::arm() {
  auto pair = kj::newPromiseAndFulfiller<void>();
  fulfiller = kj::mv(pair.fulfiller);
  told = pair.promise.fork();
}

void EndLatch::report(MachineEnd end) {
  gate.hold(Hold::ENDED);
  // A guest that reports in a loop posts nothing.
  if (isReported.exchange(true) && isGuestsOwn(end.reason)) return;
  // The mailbox carries the report over: only the loop reads and writes it.
  mailbox.post([this, end = kj::mv(end)]() mutable { take(kj::mv(end)); });
}

void EndLatch::take(MachineEnd end) {
  // Once more: what was on its way while the end before it was forgotten holds the guest as well.
  gate.hold(Hold::ENDED);
  isReported = true;
  end.boot = boot;
  if (current != nullptr) {
    if (!isGuestsOwn(end.reason) && trouble == nullptr) trouble = kj::mv(end);
    return;
  }
  current = kj::mv(end);
  fulfiller->fulfill();
}

kj::Promise<const MachineEnd*> EndLatch::whenReported() {
  return told.addBranch().then([this]() -> const MachineEnd* {
    KJ_IF_MAYBE (end, current) {
      return end;
    }
    return nullptr;
  });
}

void EndLatch::forget() {
  ++boot;
  bool wasReported = false;
  KJ_IF_MAYBE (end, current) {
    if (!isGuestsOwn(end->reason)) return;  // that one stays
    wasReported = true;
  }
  current = nullptr;
  isReported = false;
  if (wasReported) arm();
  KJ_IF_MAYBE (end, trouble) {
    isReported = true;
    auto kept = kj::mv(*end);
    trouble = nullptr;
    return take(kj::mv(kept));
  }
  gate.release(Hold::ENDED);
}

}  // namespace troupe::broker
