#pragma once

#include <kj/async.h>
#include <kj/vector.h>

#include "devices/virtio/testing/device_bench.h"
#include "devices/virtio/testing/fake_driver.h"

namespace troupe::virtio::testing {

// What it offers.
constexpr uint64_t SCRIPTED_FEATURES = F_INDIRECT_DESC | F_EVENT_IDX | 1;

// What an engine was told, and when its stop() may end.
struct Script {
  int starts = 0;
  int stops = 0;
  uint64_t features = 0;
  kj::Maybe<const GuestMemory&> memory;
  kj::Array<ActiveQueue> queues;
  kj::Vector<kj::byte> written;
  int hostEvents = 0;
  DriverLink* link = nullptr;
  bool stopAtOnce = true;
  kj::Own<kj::PromiseFulfiller<void>> letGo;
};

class ScriptedEngine final: public DeviceEngine {
 public:
  explicit ScriptedEngine(Script& script) : script(script) {}

  DeviceDescription describe() override {
    DeviceDescription description;
    description.deviceType = 42;
    description.features = SCRIPTED_FEATURES;
    description.queueSizes = kj::heapArray<uint16_t>({8, 256});
    description.config = kj::heapArray<kj::byte>({1, 2, 3, 4});
    description.configWriteMask = kj::heapArray<kj::byte>({0, 0, 255, 255});
    return description;
  }
  void start(const GuestMemory& memory, uint64_t features, kj::Array<ActiveQueue> queues,
             DriverLink& link) override {
    ++script.starts;
    script.memory = memory;
    script.features = features;
    script.queues = kj::mv(queues);
    script.link = &link;
  }
  kj::Promise<void> stop() override {
    ++script.stops;
    script.queues = nullptr;
    if (script.stopAtOnce) return kj::READY_NOW;
    auto pair = kj::newPromiseAndFulfiller<void>();
    script.letGo = kj::mv(pair.fulfiller);
    return kj::mv(pair.promise);
  }
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override {
    script.written.add(offset);
    script.written.addAll(data);
  }
  kj::Promise<void> hostEvent(HostEvent::Reader) override {
    ++script.hostEvents;
    return kj::READY_NOW;
  }

 private:
  Script& script;
};

// Such an engine behind its actor, and a driver with a ring for it.
struct ScriptedStage {
  Script script;
  FakeRam ram;
  DeviceBench bench{ram, [this](kj::AsyncIoContext&) { return kj::heap<ScriptedEngine>(script); }};
  FakeDriver driver{ram, 8};
};

}  // namespace troupe::virtio::testing
