#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/net/frame.h"
#include "devices/net/net_wire.h"
#include "devices/virtio/testing/fake_broker.h"
#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/wire.h"

namespace troupe::net::testing {

constexpr MacAddress OWN{{0x52, 0x54, 0x00, 0x12, 0x34, 0x56}};
constexpr MacAddress OTHER{{0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc}};
constexpr MacAddress BROADCAST{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

// A driver's usual choice: mergeable buffers and the control queue, nothing left to the other side.
constexpr uint64_t FEATURES =
    virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::NET_F_MAC |
    virtio::NET_F_STATUS | virtio::NET_F_MRG_RXBUF | virtio::NET_F_CTRL_VQ | virtio::NET_F_CTRL_RX |
    virtio::NET_F_CTRL_RX_EXTRA | virtio::NET_F_CTRL_MAC_ADDR | virtio::NET_F_GUEST_ANNOUNCE;
// All that a host with headers can be asked for.
constexpr uint64_t OFFLOADS =
    virtio::NET_F_CSUM | virtio::NET_F_GUEST_CSUM | virtio::NET_F_CTRL_GUEST_OFFLOADS |
    virtio::NET_F_HOST_TSO4 | virtio::NET_F_HOST_TSO6 | virtio::NET_F_HOST_ECN |
    virtio::NET_F_GUEST_TSO4 | virtio::NET_F_GUEST_TSO6 | virtio::NET_F_GUEST_ECN;

using Bytes = kj::Array<kj::byte>;

// `bytes` bytes from `source` to `destination`, of no protocol anybody knows; the rest is `fill`.
Bytes frame(const MacAddress& destination, const MacAddress& source, size_t bytes, kj::byte fill);
// The same with a virtio header in front.
Bytes withHeader(const virtio::NetHeader& header, kj::ArrayPtr<const kj::byte> frame);
Bytes concat(kj::ArrayPtr<const kj::byte> first, kj::ArrayPtr<const kj::byte> second);

// The host's end of a device's socket.
class Peer {
 public:
  explicit Peer(kj::AutoCloseFd socket) : socket(kj::mv(socket)) {}
  // One message; false when there is no room for it.
  bool send(kj::ArrayPtr<const kj::byte> bytes);
  // The next message, or what there is of a stream; none when there is nothing.
  kj::Maybe<Bytes> receive();
  void close() { socket = nullptr; }
  int fd() const { return socket; }

 private:
  kj::AutoCloseFd socket;
};

// A connected pair that does not block: the device's end, and its peer's.
struct Cable {
  explicit Cable(int type);
  kj::AutoCloseFd device;
  Peer peer;
};

// The driver of a network device: rings in RAM of its own.
class NetDriver {
 public:
  explicit NetDriver(uint16_t pairs = 1, uint16_t ringSize = 256);
  KJ_DISALLOW_COPY(NetDriver);

  virtio::testing::FakeRam ram{64 << 20};
  const uint16_t pairs;

  virtio::testing::FakeDriver& receiver(uint16_t pair = 0) { return *drivers[2 * pair]; }
  virtio::testing::FakeDriver& transmitter(uint16_t pair = 0) { return *drivers[2 * pair + 1]; }
  virtio::testing::FakeDriver& control() { return *drivers.back(); }

  // DRIVER_OK with all queues; rings begin anew after the first.
  void activate(virtio::testing::FakeBroker& broker, uint64_t features);
  // The same with these alone.
  void activateSome(virtio::testing::FakeBroker& broker, uint64_t features,
                    kj::ArrayPtr<const uint16_t> queues);

  // The same, with a command that is in the control queue by then; returns the device's answer.
  uint8_t activateWithCommand(virtio::testing::FakeBroker& broker, uint64_t features,
                              uint8_t commandClass, uint8_t command,
                              kj::ArrayPtr<const kj::byte> data);

  // The same with all of them, as the device's activation of this number; `resumed`: the rings
  // stay, as a process before this one has left them.
  void activateAs(virtio::testing::FakeBroker& broker, uint64_t features, uint64_t number,
                  bool resumed);

  // Makes a frame available to the device and notifies it, if it asked.
  void send(virtio::testing::FakeBroker& broker, const virtio::NetHeader& header,
            kj::ArrayPtr<const kj::byte> frame, uint16_t pair = 0);
  void send(virtio::testing::FakeBroker& broker, kj::ArrayPtr<const kj::byte> frame,
            uint16_t pair = 0) {
    send(broker, virtio::NetHeader{}, frame, pair);
  }
  // Waits until the device is done with so many of what was sent.
  void waitForSent(virtio::testing::FakeBroker& broker, uint32_t count, uint16_t pair = 0);

  // Receive buffers of `bytes` bytes each, and a notification if it is asked for.
  void offer(virtio::testing::FakeBroker& broker, uint32_t count, uint32_t bytes,
             uint16_t pair = 0);
  // The next frame that has arrived, as the driver puts it together.
  struct Arrival {
    virtio::NetHeader header;
    Bytes frame;
    kj::Vector<uint32_t> written;  // of each buffer
  };
  kj::Maybe<Arrival> takeArrival(uint16_t pair = 0);
  Arrival waitForArrival(virtio::testing::FakeBroker& broker, uint16_t pair = 0);

  // A command; returns the device's answer.
  uint8_t command(virtio::testing::FakeBroker& broker, uint8_t commandClass, uint8_t command,
                  kj::ArrayPtr<const kj::byte> data);
  template <typename T>
  uint8_t command(virtio::testing::FakeBroker& broker, uint8_t commandClass, uint8_t number,
                  const T& data) {
    return command(broker, commandClass, number, kj::arrayPtr(&data, 1).asBytes());
  }

 private:
  struct Offered {
    uint16_t head;
    uint64_t address;
    uint32_t bytes;
  };
  using ActivateRequest = capnp::Request<Device::ActivateParams, Device::ActivateResults>;
  ActivateRequest activateRequest(virtio::testing::FakeBroker& broker, uint64_t features,
                                  kj::ArrayPtr<const uint16_t> queues);
  kj::Array<uint16_t> allQueues(uint64_t features);
  uint64_t addCommand(uint8_t commandClass, uint8_t number, kj::ArrayPtr<const kj::byte> data);
  uint8_t waitForAnswer(virtio::testing::FakeBroker& broker, uint64_t answer);

  const uint16_t ringSize;
  uint16_t controlQueue = 2;
  kj::Vector<kj::Own<virtio::testing::FakeDriver>> drivers;  // by queue
  kj::Vector<kj::Vector<Offered>> offered;                   // by pair
  void makeRings();
};

}  // namespace troupe::net::testing
