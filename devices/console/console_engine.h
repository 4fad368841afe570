#pragma once

#include <kj/async-unix.h>

#include "devices/console/backend.h"
#include "devices/console/receive_queue.h"
#include "devices/console/transmit_queue.h"
#include "devices/virtio/device_engine.h"

namespace troupe::console {

// Virtio console with one port (§5.3), between a driver's two queues and a Line.
class ConsoleEngine final: public virtio::DeviceEngine {
 public:
  // `columns` and `rows` of the terminal behind the line; 0 where that is not known.
  ConsoleEngine(kj::UnixEventPort& events, Line& line, uint16_t columns, uint16_t rows);
  ~ConsoleEngine() noexcept(false);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  kj::Promise<void> stop() override;
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;
  kj::Promise<void> hostEvent(HostEvent::Reader event) override;
  kj::Promise<void> finish() override;

 private:
  struct Active;  // what lives from start() to stop()
  void tellSize();

  kj::UnixEventPort& events;
  Line& line;
  uint16_t columns;
  uint16_t rows;
  uint16_t toldColumns;  // what the broker's copy of the configuration space holds
  uint16_t toldRows;
  kj::Maybe<kj::Own<Active>> active;
};

}  // namespace troupe::console
