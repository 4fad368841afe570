#pragma once

#include <kj/async-unix.h>

#include "devices/console/control_rings.h"
#include "devices/console/port_control.h"
#include "devices/console/queue_turns.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// control transmitq (§5.3.6.2): what the driver says goes to a PortControl.
class ControlTransmitQueue {
 public:
  ControlTransmitQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, PortControl& control);

  // Runs the queue. Resolves when the driver broke the ring; destroying the promise stops it.
  kj::Promise<void> run() { return turns.run(); }

 private:
  QueueTurns::Next serve();

  PortControl& control;
  ControlTransmitRing messages;
  QueueTurns turns;
};

// control receiveq: what a PortControl has to say, in the buffers the driver puts there.
class ControlReceiveQueue {
 public:
  ControlReceiveQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, PortControl& control);

  // As above.
  kj::Promise<void> run() { return turns.run(); }

 private:
  QueueTurns::Next serve();

  ControlReceiveRing messages;
  QueueTurns turns;
};

}  // namespace troupe::console
