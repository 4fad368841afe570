#pragma once

#include <kj/async-unix.h>
#include <kj/common.h>

#include "devices/net/control.h"
#include "devices/virtio/device_engine.h"

namespace troupe::net {

// Who has the driver's commands obeyed.
class ControlTarget {
 public:
  // The command took effect in `control`, if it is one of RULES, ADDRESS and OFFLOADS. Resolves
  // with whether it is obeyed; until then the driver has no answer and the next command waits.
  virtual kj::Promise<bool> obey(const Control& control, Control::Command command) = 0;
};

// Serves the control queue on the main loop, from construction to destruction, one command after
// the other. When the ring is broken it says so and stops.
class ControlServer {
 public:
  // All borrowed but the queue.
  ControlServer(kj::UnixEventPort& events, virtio::ActiveQueue queue, Control& control,
                ControlTarget& target, virtio::DriverLink& link);
  KJ_DISALLOW_COPY(ControlServer);

 private:
  kj::Promise<void> serve();
  kj::Promise<void> answer(virtio::Chain&& chain);
  void tellDriver();

  virtio::ActiveQueue queue;
  Control& control;
  ControlTarget& target;
  virtio::DriverLink& link;
  kj::Timer& timer;
  // Edge-triggered, and never read: each notification is an edge of its own.
  kj::UnixEventPort::FdObserver kick;
  kj::Promise<void> serving;
};

}  // namespace troupe::net
