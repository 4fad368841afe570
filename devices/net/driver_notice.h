#pragma once

#include <kj/common.h>
#include <sys/eventfd.h>

#include <cstdint>

#include "devices/virtio/spin.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::net {

// Tells a driver of the chains it got back: often, as that costs a store, so that it works on them
// while the rest is served. One that sleeps is interrupted with the first group, since it takes as
// long to wake up as many a frame to serve; not with the first chain, when it is still on its way
// to sleep and the interrupt would throw it out of the guest. While there is more, not again for a
// while, as an interrupt costs both sides more than a frame does. Belongs to one thread.
class DriverNotice {
 public:
  // Borrowed. `call`: the queue's. What is pushed is shown in groups of `showAfter`; between two
  // interrupts are `pauseNs` at least, while there is more.
  DriverNotice(virtio::Virtqueue& ring, int call, uint32_t showAfter, uint64_t pauseNs)
      : ring(ring), call(call), showAfter(showAfter), pauseNs(pauseNs) {}
  KJ_DISALLOW_COPY(DriverNotice);

  // What was pushed into the ring since the last call belongs together, and is complete.
  void pushed() {
    if (++unseen < showAfter) return;
    // A driver that is awake has not to wait for the clock.
    bool mayInterrupt = ring.isAwaited() && virtio::monotonicNs() >= notBefore;
    if (mayInterrupt) return tellAll();
    ring.show();
    unseen = 0;
  }

  // There is no more for now.
  void tellAll() {
    unseen = 0;
    if (!ring.publish()) return;
    notBefore = virtio::monotonicNs() + pauseNs;
    // A full counter is the only failure: then the interrupt is pending anyway.
    eventfd_write(call, 1);
  }

 private:
  virtio::Virtqueue& ring;
  const int call;
  const uint32_t showAfter;
  const uint64_t pauseNs;
  uint32_t unseen = 0;     // pushed and not shown
  uint64_t notBefore = 0;  // the next interrupt, while there is more
};

}  // namespace troupe::net
