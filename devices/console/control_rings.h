#pragma once

#include "devices/console/port_control.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::console {

// The driver's control messages, one to a chain (§5.3.6.2), for a PortControl. What is too short to
// be one is returned and forgotten, and so is what follows one. Knows no fd and no event loop.
class ControlTransmitRing {
 public:
  // Both outlive it.
  ControlTransmitRing(virtio::Virtqueue& ring, PortControl& control)
      : ring(ring), control(control) {}

  // Takes a bounded number. EMPTY: nothing is left. MORE: there may be. BROKEN: only a reset heals
  // the ring.
  enum class Outcome { EMPTY, MORE, BROKEN };
  Outcome serve();

 private:
  virtio::Virtqueue& ring;
  PortControl& control;
};

// The device's control messages: each goes into one buffer of the driver's. One that its buffer is
// too small for is dropped, and the buffer comes back empty.
class ControlReceiveRing {
 public:
  // Both outlive it.
  ControlReceiveRing(virtio::Virtqueue& ring, PortControl& control)
      : ring(ring), control(control) {}

  // Fills a bounded number of buffers. NO_MESSAGE: there is nothing to say. NO_BUFFER: there is.
  // MORE: both may be there. BROKEN: only a reset heals the ring.
  enum class Outcome { NO_MESSAGE, NO_BUFFER, MORE, BROKEN };
  Outcome serve();

 private:
  virtio::Virtqueue& ring;
  PortControl& control;
};

}  // namespace troupe::console
