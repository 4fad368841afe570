#pragma once

#include <kj/async-unix.h>

#include "devices/console/input_queue.h"
#include "devices/console/open_state.h"
#include "devices/console/queue_turns.h"
#include "devices/console/receive_ring.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// receiveq of a port (§5.3.6): input goes into the buffers the driver puts there. It waits in its
// InputQueue while there is none, and while the driver's side of the port is closed: what comes
// then, a driver throws away.
class ReceiveQueue {
 public:
  // `input` and `guest` outlive it.
  ReceiveQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, InputQueue& input,
               OpenState& guest);

  // Runs the queue. Resolves when the driver broke the ring; destroying the promise stops it.
  kj::Promise<void> run() { return turns.run(); }

 private:
  QueueTurns::Next serve();
  kj::Promise<void> whenInput();

  InputQueue& input;
  OpenState& guest;
  ReceiveRing requests;
  QueueTurns turns;
};

}  // namespace troupe::console
