#pragma once

#include <kj/array.h>
#include <kj/async.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/virtio/device_engine.h"
#include "devices/virtio/flight_log.h"
#include "devices/virtio/queue_counters.h"
#include "devices/virtio/queue_journal.h"
#include "devices/virtio/ram_mapping.h"
#include "protos/device.capnp.h"

namespace troupe::virtio {

// What an actor asks of the process it lives in: sandbox::ActorSetup behind it, a fake in tests.
class ProcessJail {
 public:
  // Duplicates `fd` to the number the profile gives `name`, which it returns.
  virtual int place(kj::StringPtr name, uint32_t index, int fd) = 0;
  // Closes what was placed as `name`.
  virtual void close(kj::StringPtr name) = 0;
  // Narrows the process to the filter of `stage`.
  virtual void enter(kj::StringPtr stage) = 0;
};

// Serves one virtio device to the broker: interface Device in protos/device.capnp. What differs
// between device kinds is in the engine; this class checks what the broker says, maps guest RAM,
// makes the rings, and takes the filters "ready" and "run".
//
// A wrong call of the broker throws; a ring the guest put outside RAM makes needsReset().
class DeviceActor final: public Device::Server,
                         private DriverLink,
                         private kj::TaskSet::ErrorHandler {
 public:
  // All outlive the actor. `journals`: memory that outlives this process, in which it notes for its
  // successor what it has in flight (queue_journal.h); empty: there will be none. Throws when it is
  // too small for the engine's queues. `counters`: where it counts what its queues do, if anybody
  // is to see that. `flight`: what records it. `quarantine`: where requests go that processes die
  // of. `pulse`: the main thread's, where each chain is a step unless the engine gives its queue to
  // another thread.
  DeviceActor(DeviceEngine& engine, ProcessJail& jail, kj::ArrayPtr<kj::byte> journals = nullptr,
              kj::Maybe<CounterPage&> counters = nullptr, kj::Maybe<FlightLog&> flight = nullptr,
              kj::Maybe<Quarantine&> quarantine = nullptr, kj::Maybe<Pulse&> pulse = nullptr);

  // Resolves with this process's place once it is ready. To be called once.
  kj::Promise<uint8_t> onReady() { return kj::mv(ready.promise); }

  // Rejected when the broker can no longer be told something: then the process has no use any more.
  kj::Promise<void> onFailure();

  kj::Promise<void> describe(DescribeContext context) override;
  kj::Promise<void> attach(AttachContext context) override;
  kj::Promise<void> activate(ActivateContext context) override;
  kj::Promise<void> reset(ResetContext context) override;
  kj::Promise<void> writeConfig(WriteConfigContext context) override;
  kj::Promise<void> hostEvent(HostEventContext context) override;
  kj::Promise<void> report(ReportContext context) override;
  kj::Promise<void> handOver(HandOverContext context) override;
  kj::Promise<void> takeOver(TakeOverContext context) override;

  // Another process goes on: there is nothing to finish here.
  bool hasHandedOver() const { return handedOver; }

 private:
  struct QueueFds {
    int kick;
    int call;
  };
  // What the device holds from attach() on, for good.
  struct Attached {
    Attached(RamMapping ram, kj::Array<QueueFds> fds, DeviceHost::Client host)
        : ram(kj::mv(ram)), fds(kj::mv(fds)), host(kj::mv(host)) {}
    RamMapping ram;
    kj::Array<QueueFds> fds;
    DeviceHost::Client host;
  };
  enum class State { INACTIVE, ACTIVE, STOPPING };

  void takeHold(AttachContext& context, kj::ArrayPtr<const kj::Maybe<int>> lent);
  int take(kj::StringPtr name, uint32_t index, const kj::Maybe<int>& lent);
  RamMapping mapRam(GuestRam::Reader memory, const kj::Maybe<int>& lent);
  Attached& requireAttached();
  kj::Maybe<kj::Array<ActiveQueue>> makeRings(Attached& with, ActivateParams::Reader params);
  kj::Maybe<kj::Own<Virtqueue>> makeRing(const GuestMemory& memory, const RingLayout& layout,
                                         QueueLayout::Reader queue, ActivateParams::Reader params);
  bool goesOn(ActivateParams::Reader params) const;

  void fillInfo(DeviceInfo::Builder info);
  void recordActivation(ActivateParams::Reader params);

  void configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;
  void needsReset() override;
  kj::Promise<uint64_t> returnChains(uint16_t queue, kj::ArrayPtr<const UsedElement> chains,
                                     kj::ArrayPtr<const GuestRange> giveBack) override;
  void taskFailed(kj::Exception&& exception) override;

  DeviceEngine& engine;
  ProcessJail& jail;
  DeviceDescription description;               // its configuration as it was told last
  kj::Array<kj::Own<QueueJournal>> journals;   // by queue, or none
  kj::Array<kj::Own<QueueCounters>> counters;  // by queue, or none
  kj::Maybe<FlightLog&> flight;
  kj::Maybe<Quarantine&> quarantine;
  kj::Maybe<Pulse&> pulse;
  bool attachBegan = false;
  bool handedOver = false;
  bool takeOverBegan = false;
  kj::Maybe<kj::Own<Attached>> attached;
  State state = State::INACTIVE;
  bool askedForReset = false;       // since the last activate()
  kj::ForkedPromise<void> stopped;  // of the last stop()
  kj::PromiseFulfillerPair<uint8_t> ready;
  kj::PromiseFulfillerPair<void> failure;
  kj::TaskSet calls;  // to the broker, unanswered
};

}  // namespace troupe::virtio
