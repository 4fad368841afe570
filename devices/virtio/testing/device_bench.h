#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/vector.h>

#include "devices/virtio/device_actor.h"
#include "devices/virtio/device_engine.h"
#include "devices/virtio/testing/fake_broker.h"
#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"

namespace troupe::virtio::testing {

// The jail, as a device sees it: keeps the fds at numbers of its own and notes the stages.
class FakeJail final: public ProcessJail {
 public:
  int place(kj::StringPtr name, uint32_t index, int fd) override;
  void close(kj::StringPtr name) override;
  void enter(kj::StringPtr stage) override { stages.add(kj::heapString(stage)); }

  kj::Vector<kj::String> stages;

 private:
  struct Place {
    kj::String name;
    kj::AutoCloseFd fd;
  };
  kj::Vector<Place> places;
};

using MakeEngine = kj::Function<kj::Own<DeviceEngine>(kj::AsyncIoContext& io)>;

// One device of this process and the actor that serves it.
class InProcessDevice {
 public:
  // `journals`: see DeviceActor.
  explicit InProcessDevice(MakeEngine makeEngine, kj::ArrayPtr<kj::byte> journals = nullptr);
  ~InProcessDevice() noexcept(false);
  KJ_DISALLOW_COPY(InProcessDevice);

  kj::AsyncIoContext io = kj::setupAsyncIo();
  FakeJail jail;
  Pulse pulse;  // of the thread that serves it
  // Has the engine's own threads show there how they get on.
  void showIn(const VitalSigns& signs) { engine->showIn(signs); }

 protected:
  kj::Own<DeviceEngine> engine;
  kj::Own<kj::AsyncCapabilityStream> brokerEnd;

 private:
  kj::Own<kj::AsyncCapabilityStream> deviceEnd;
  kj::Own<capnp::TwoPartyClient> rpc;
};

// One device, its actor served over a real socket pair, with this test as broker and driver (see
// FakeBroker). Device and broker share one event loop, so every wait turns both; threads of the
// engine run as ever.
class DeviceBench: public InProcessDevice, public FakeBroker {
 public:
  DeviceBench(FakeRam& ram, MakeEngine makeEngine, kj::ArrayPtr<kj::byte> journals = nullptr);
};

}  // namespace troupe::virtio::testing
