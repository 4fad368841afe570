#pragma once

#include <kj/async-unix.h>

#include "devices/console/input_queue.h"
#include "devices/console/queue_turns.h"
#include "devices/console/receive_ring.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// receiveq of a port (§5.3.6): input goes into the buffers the driver puts there, and waits in its
// InputQueue while there is none.
class ReceiveQueue {
 public:
  ReceiveQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, InputQueue& input);

  // Runs the queue. Resolves when the driver broke the ring; destroying the promise stops it.
  kj::Promise<void> run() { return turns.run(); }

 private:
  QueueTurns::Next serve();

  ReceiveRing requests;
  QueueTurns turns;
};

}  // namespace troupe::console
