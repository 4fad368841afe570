#pragma once

#include <kj/async-unix.h>

#include "devices/console/kick.h"
#include "devices/console/output_log.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// transmitq of a port (§5.3.6): what the driver puts there goes to an OutputLog.
class TransmitQueue {
 public:
  TransmitQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, OutputLog& log);

  // Runs the queue. Resolves when the driver broke the ring; destroying the promise stops it.
  kj::Promise<void> run();

  // Takes what is there now, as much as one turn of run() does.
  void serveOnce();

 private:
  enum class Outcome { EMPTY, MORE, CONGESTED, BROKEN };
  Outcome serveSome();
  bool copySome();
  void publish();

  virtio::ActiveQueue queue;
  OutputLog& log;
  kj::Timer& timer;
  Kick kick;
  kj::Array<kj::byte> copy;
  kj::Maybe<virtio::Chain> current;  // taken, and not yet copied to its end
};

}  // namespace troupe::console
