#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>

#include "devices/console/port.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// As many as the profile has fds for; queues of one device would suffice for 14.
constexpr uint16_t MOST_PORTS = 8;

// Virtio console (§5.3): some ports, each between two queues of a driver's and a Line. A single
// console without a name needs no control queues and offers none. A driver that does not take
// MULTIPORT has port 0, whatever it is.
class ConsoleEngine final: public virtio::DeviceEngine {
 public:
  // One to MOST_PORTS; their lines outlive the engine.
  ConsoleEngine(kj::UnixEventPort& events, kj::Array<Port> ports);
  ~ConsoleEngine() noexcept(false);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  void resume(const virtio::GuestMemory& memory, uint64_t features,
              kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  void forget() override;
  kj::Promise<void> stop() override;
  kj::Promise<void> handOver() override;
  kj::Promise<void> takeOver() override;
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;
  kj::Promise<void> hostEvent(HostEvent::Reader event) override;
  void showIn(const virtio::VitalSigns& signs) override;
  kj::Promise<void> finish() override;

 private:
  class Active;  // what lives from start() to stop()
  enum class Driver { NEW, OF_A_DEAD_PROCESS };

  void begin(Driver driver, uint64_t features, kj::Array<virtio::ActiveQueue> queues,
             virtio::DriverLink& link);
  bool offersPorts() const;

  kj::UnixEventPort& events;
  kj::Array<Port> ports;
  uint16_t toldColumns;  // what the broker's copy of the configuration space holds: port 0's
  uint16_t toldRows;
  bool isFirstWrite = true;  // an emergency write, to this process
  kj::Maybe<kj::Own<Active>> active;
};

}  // namespace troupe::console
