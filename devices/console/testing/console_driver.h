#pragma once

#include <kj/vector.h>

#include <string>

#include "devices/console/wire.h"
#include "devices/virtio/testing/fake_broker.h"
#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"

namespace troupe::console::testing {

// What a driver reads from its control receiveq.
struct Heard {
  uint32_t port;
  uint16_t event;
  uint16_t value;
  std::string more;

  bool operator==(const Heard& other) const {
    return port == other.port && event == other.event && value == other.value && more == other.more;
  }
};
void PrintTo(const Heard& heard, std::ostream* to);

// A guest's driver of a console with control queues and some ports; the console is one of this
// process or one in its jail.
class ConsoleDriver {
 public:
  static constexpr uint64_t FEATURES =
      F_SIZE | F_MULTIPORT | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::F_VERSION_1;

  ConsoleDriver(virtio::testing::FakeBroker& broker, uint16_t ports);

  // DRIVER_OK with all queues enabled and empty.
  void activate(uint64_t features = FEATURES);

  virtio::testing::FakeDriver& queue(uint16_t index) { return *queues[index]; }
  virtio::testing::FakeDriver& transmit(uint16_t port) { return queue(transmitQueueOf(port)); }
  virtio::testing::FakeDriver& receive(uint16_t port) { return queue(receiveQueueOf(port)); }

  void print(uint16_t port, const std::string& text);

  // Offers a port one buffer for input.
  virtio::testing::Buffer offer(uint16_t port, uint32_t size = 64);
  // What comes in `buffer`, the oldest that is not returned.
  std::string input(uint16_t port, const virtio::testing::Buffer& buffer);

  // Sends a control message and waits until it was taken.
  void say(uint16_t event, uint16_t value, uint32_t port = 0);
  void sayRaw(kj::ArrayPtr<const kj::byte> message);

  void offerControl(int count, uint32_t size = 4096);
  // The next control message that the device has for us.
  Heard hear();
  size_t heardMessages() const { return heard; }

 private:
  std::string inRam(const virtio::testing::Buffer& buffer, size_t size);

  virtio::testing::FakeBroker& broker;
  virtio::testing::FakeRam& ram;
  kj::Array<kj::Own<virtio::testing::FakeDriver>> queues;
  kj::Vector<virtio::testing::Buffer> controlBuffers;  // in the order they were offered
  size_t heard = 0;                                    // how many of them came back
};

}  // namespace troupe::console::testing
