#include "devices/console/broadcast.h"

namespace troupe::console {

kj::Promise<void> Broadcast::wait() {
  // Those who stopped waiting leave a dead entry; room is found there first, so that waiting and
  // giving up in a loop needs no more memory than there ever were waiters at once.
  auto paf = kj::newPromiseAndFulfiller<void>();
  for (auto& waiter : waiters) {
    if (waiter->isWaiting()) continue;
    waiter = kj::mv(paf.fulfiller);
    return kj::mv(paf.promise);
  }
  waiters.add(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

void Broadcast::raise() {
  for (auto& waiter : waiters)
    waiter->fulfill();
  waiters.clear();
}

}  // namespace troupe::console
