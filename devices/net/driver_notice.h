#pragma once

#include <kj/common.h>
#include <sys/eventfd.h>

#include <cstdint>

#include "devices/virtio/spin.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::net {

// Tells a driver of the chains it got back: often, as that costs a store, so that it works on them
// while the rest is served. One that sleeps is interrupted at the first of them, since it takes as
// long to wake up as many a frame to serve; but while there is more, not again for a while, as an
// interrupt costs both sides more than a frame does. Belongs to one thread.
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
    show();
    if (isWanted && virtio::monotonicNs() >= notBefore) interrupt();
  }

  // There is no more for now.
  void tellAll() {
    if (unseen > 0) show();
    if (isWanted) interrupt();
  }

 private:
  void show() {
    isWanted |= ring.publish();
    unseen = 0;
  }

  void interrupt() {
    isWanted = false;
    notBefore = virtio::monotonicNs() + pauseNs;
    // A full counter is the only failure: then the interrupt is pending anyway.
    eventfd_write(call, 1);
  }

  virtio::Virtqueue& ring;
  const int call;
  const uint32_t showAfter;
  const uint64_t pauseNs;
  uint32_t unseen = 0;     // pushed and not yet published
  bool isWanted = false;   // an interrupt for what was published
  uint64_t notBefore = 0;  // the next one, while there is more
};

}  // namespace troupe::net
