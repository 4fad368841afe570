#pragma once

#include <kj/async.h>
#include <kj/common.h>
#include <kj/vector.h>

namespace troupe::console {

// Wakes everybody who waits for one thing to happen. A raise() with nobody waiting is forgotten:
// look at the state first, then wait, in the same turn of the event loop.
class Broadcast {
 public:
  Broadcast() = default;
  KJ_DISALLOW_COPY(Broadcast);

  kj::Promise<void> wait();
  void raise();

 private:
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> waiters;
};

}  // namespace troupe::console
