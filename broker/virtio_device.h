#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

namespace troupe::broker {

constexpr uint16_t MAX_QUEUES = 31;  // a kick and a call fd each, and the RAM fd, fit one message

// What a virtio device is, once checked: counts, sizes and lengths are within protos/device.capnp.
struct DeviceDescription {
  uint16_t deviceType;  // §5
  uint64_t features;
  kj::Array<uint16_t> queueSizes;
  kj::Array<kj::byte> config;
  kj::Array<kj::byte> configWriteMask;  // as long as `config`
};

// One enabled queue as latched at DRIVER_OK. The addresses are the driver's, unchecked.
struct QueueSettings {
  uint16_t index;
  uint16_t size;
  uint64_t descriptorTable;
  uint64_t availableRing;
  uint64_t usedRing;
};

// The two eventfds of one queue, borrowed from the transport, which keeps them for good.
struct QueueFds {
  int kick;
  int call;
};

// A device as its transport sees it. Main loop only; every method returns at once.
class VirtioDevice {
 public:
  virtual void activate(uint64_t features, kj::Array<QueueSettings> queues) = 0;

  // Answered by VirtioDeviceClient::resetDone(), which may come before this returns.
  virtual void reset() = 0;

  // The driver changed these bytes of the configuration space; they are masked already.
  virtual void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) = 0;
};

// A transport as its device sees it. Main loop only.
class VirtioDeviceClient {
 public:
  // False, and nothing changed, when the bytes would pass the end of the configuration space.
  virtual bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) = 0;
  virtual void needsReset() = 0;
  virtual void resetDone() = 0;
};

}  // namespace troupe::broker
