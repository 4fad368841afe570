#pragma once

#include <kj/array.h>
#include <kj/async.h>
#include <kj/common.h>
#include <kj/debug.h>

#include <cstdint>

#include "devices/virtio/flight_log.h"
#include "devices/virtio/guest_memory.h"
#include "devices/virtio/virtqueue.h"
#include "devices/virtio/vital_signs.h"
#include "protos/device.capnp.h"

namespace troupe::virtio {

// What one device kind is (protos/device.capnp, DeviceInfo, has the ranges).
struct DeviceDescription {
  uint16_t deviceType;
  uint64_t features;
  kj::Array<uint16_t> queueSizes;
  kj::Array<kj::byte> config;
  kj::Array<kj::byte> configWriteMask;      // as long as `config`
  uint32_t resetDeadlineMs = 500;           // how long stop() may take; longer ends the VM
  UsedRing usedRings = UsedRing::IN_GUEST;  // COPY: returned through DriverLink::returnChains()
  Suspects suspects = Suspects::TOGETHER;   // ALONE: no chain waits for another one
};

// One enabled queue, handed to an engine at DRIVER_OK.
struct ActiveQueue {
  uint16_t index;
  kj::Own<Virtqueue> ring;
  int kick;  // borrowed eventfds, non-blocking, valid for the life of the process
  int call;
};

// Bytes of guest RAM, by the guest's addresses.
struct GuestRange {
  uint64_t guestAddress;
  uint64_t size;
};

// The engine's way back to the driver, through the broker. Main thread only.
class DriverLink {
 public:
  virtual void configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) = 0;
  virtual void needsReset() = 0;

  // For an engine whose used rings are copies. Has `giveBack` given back to the host, and then
  // `chains` returned to the driver (protos/device.capnp, DeviceHost.returnChains, has the rules);
  // resolves with how many bytes the host took. The engine raises the interrupt.
  virtual kj::Promise<uint64_t> returnChains(uint16_t /*queue*/,
                                             kj::ArrayPtr<const UsedElement> /*chains*/,
                                             kj::ArrayPtr<const GuestRange> /*giveBack*/) {
    KJ_UNIMPLEMENTED("this link leads to no broker");
  }
};

// What a device kind adds to the common actor (device_actor.h), which owns mapping, fds, RPC and
// jail stages. All methods are called on the process's main thread: start, stop, start and so on in
// turn.
//
// An engine is constructed (its threads and its host resources included) before the process takes
// its serving filter, and works under that filter from then on.
class DeviceEngine {
 public:
  virtual ~DeviceEngine() noexcept(false) = default;

  virtual DeviceDescription describe() = 0;

  // The device is recorded, or replayed, there: for what an engine does beside its rings' chains
  // (host_inputs.h). Comes once, before any start(). `log` outlives the engine.
  virtual void recordIn(FlightLog& /*log*/) {}

  // The driver is ready. Look at each ring once without waiting for a kick.
  // `memory` and `link` outlive the time until stop() has answered.
  virtual void start(const GuestMemory& memory, uint64_t features, kj::Array<ActiveQueue> queues,
                     DriverLink& link) = 0;

  // The same for a driver that a process before this one served, and that knows nothing of its
  // death. `queues` give out again what that process had in flight (virtqueue.h, resume()).
  virtual void resume(const GuestMemory& memory, uint64_t features, kj::Array<ActiveQueue> queues,
                      DriverLink& link) {
    start(memory, features, kj::mv(queues), link);
  }

  // What was kept of a driver for a successor of this process is of no use any more: comes before
  // each start(), and not before resume().
  virtual void forget() {}

  // Resolves when no ring and no buffer is touched any more.
  virtual kj::Promise<void> stop() = 0;

  // The same, but the driver knows nothing of it: another process goes on where this one stops, as
  // it would after its death. Resolves when all that one needs to know is in the memory that
  // outlives this process; nothing comes after it, and nothing is touched any more.
  virtual kj::Promise<void> handOver() { return stop(); }

  // Of a process that takes another's place (sandbox::ActorSetup::isSuccessor()): that one has
  // ended. What it kept, and what both have fds of, is this process's from now on. Comes once,
  // before all that follows describe(), which is asked again behind it; until then nothing that is
  // shared is changed, and what was read of it may be of another time.
  virtual kj::Promise<void> takeOver() { return kj::READY_NOW; }

  // The driver changed these bytes of the configuration space.
  virtual void writeConfig(uint32_t /*offset*/, kj::ArrayPtr<const kj::byte> /*data*/) {}

  // Resolves when it has been dealt with; `event` is read before it returns.
  virtual kj::Promise<void> hostEvent(HostEvent::Reader /*event*/) { return kj::READY_NOW; }

  // Writes down what there is to tell; `report` lives until the promise resolves.
  virtual kj::Promise<void> report(DeviceReport::Builder /*report*/) { return kj::READY_NOW; }

  // Somebody looks there whether the process is stuck. Threads of the engine's that may be show in
  // these signs from now on how they get on; the main loop does without it. Comes once at most.
  virtual void showIn(const VitalSigns& /*signs*/) {}

  // The broker is gone and the process is about to end. Resolves, within seconds at most, when what
  // the guest has handed over has reached the host.
  virtual kj::Promise<void> finish() { return kj::READY_NOW; }
};

}  // namespace troupe::virtio
