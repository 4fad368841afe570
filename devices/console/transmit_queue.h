#pragma once

#include <kj/async-unix.h>

#include "devices/console/output_log.h"
#include "devices/console/queue_turns.h"
#include "devices/console/transmit_ring.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// transmitq of a port (§5.3.6): what the driver puts there goes to an OutputLog.
class TransmitQueue {
 public:
  // `logged`: see TransmitRing.
  TransmitQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, OutputLog& log,
                uint64_t logged);

  // Runs the queue. Resolves when the driver broke the ring; destroying the promise stops it.
  kj::Promise<void> run() { return turns.run(); }

  // Takes what is there now, as much as one turn of run() does.
  void serveOnce() { turns.once(); }

 private:
  QueueTurns::Next serve();

  TransmitRing requests;
  QueueTurns turns;
};

}  // namespace troupe::console
