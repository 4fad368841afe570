#include "broker/end_latch.h"

namespace troupe::broker {

EndLatch::EndLatch(Mailbox& mailbox) : mailbox(mailbox) {
  auto pair = kj::newPromiseAndFulfiller<void>();
  fulfiller = kj::mv(pair.fulfiller);
  told = pair.promise.fork();
}

void EndLatch::report(MachineEnd first) {
  if (isReported.exchange(true)) return;
  // The mailbox carries the report over: only the loop reads and writes `end`.
  mailbox.post([this, first = kj::mv(first)]() mutable {
    end = kj::mv(first);
    fulfiller->fulfill();
  });
}

kj::Promise<const MachineEnd*> EndLatch::whenReported() {
  return told.addBranch().then([this]() -> const MachineEnd* { return &end; });
}

}  // namespace troupe::broker
