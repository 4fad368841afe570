#pragma once

#include <kj/async-unix.h>
#include <kj/function.h>

#include "devices/console/kick.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// Serves one queue of a port in turns of the event loop, with the driver on one side of it and the
// host on the other.
class QueueTurns {
 public:
  // What a turn ends with.
  enum class Next {
    DRIVER,  // there is nothing left of the driver's
    HOST,    // the host is not ready for more
    MORE,    // neither, but others of this loop have waited long enough
    BROKEN   // only a reset heals the ring
  };
  using Serve = kj::Function<Next()>;
  using WhenHostIsReady = kj::Function<kj::Promise<void>()>;

  // `told` is called when the driver has been told of what a turn returned.
  QueueTurns(
      kj::UnixEventPort& events, virtio::ActiveQueue queue, Serve serve,
      WhenHostIsReady whenHostIsReady, kj::Function<void()> told = []() {});
  KJ_DISALLOW_COPY(QueueTurns);

  // One turn after another. Resolves when the ring is broken; destroying the promise stops it.
  kj::Promise<void> run();

  // One turn now, whatever it ends with.
  Next once();

 private:
  virtio::ActiveQueue queue;
  Serve serve;
  WhenHostIsReady whenHostIsReady;
  kj::Function<void()> told;
  kj::Timer& timer;
  Kick kick;
};

}  // namespace troupe::console
