#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "broker/virtio_device.h"

namespace troupe::broker {

constexpr uint8_t STATUS_ACKNOWLEDGE = 1;  // §2.1
constexpr uint8_t STATUS_DRIVER = 2;
constexpr uint8_t STATUS_DRIVER_OK = 4;
constexpr uint8_t STATUS_FEATURES_OK = 8;
constexpr uint8_t STATUS_DEVICE_NEEDS_RESET = 64;
constexpr uint8_t STATUS_FAILED = 128;

constexpr uint64_t FEATURE_INDIRECT_DESC = uint64_t(1) << 28;  // §6
constexpr uint64_t FEATURE_EVENT_IDX = uint64_t(1) << 29;
constexpr uint64_t FEATURE_VERSION_1 = uint64_t(1) << 32;
constexpr uint64_t FEATURE_IN_ORDER = uint64_t(1) << 35;

// Device-specific bits, and those ring features that need nothing of a transport. Notification
// data, ring reset and packed rings are not offered.
constexpr uint64_t FEATURES_CARRIED =
    0xffffff | FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX | FEATURE_IN_ORDER | ~uint64_t(0) << 50;

constexpr uint8_t ISR_QUEUE = 1;  // §4.1.4.5
constexpr uint8_t ISR_CONFIG = 2;

// struct virtio_pci_common_cfg, §4.1.4.3.
enum CommonRegister : uint32_t {
  DEVICE_FEATURE_SELECT = 0x00,
  DEVICE_FEATURE = 0x04,
  DRIVER_FEATURE_SELECT = 0x08,
  DRIVER_FEATURE = 0x0c,
  CONFIG_MSIX_VECTOR = 0x10,
  NUM_QUEUES = 0x12,
  DEVICE_STATUS = 0x14,
  CONFIG_GENERATION = 0x15,
  QUEUE_SELECT = 0x16,
  QUEUE_SIZE = 0x18,
  QUEUE_MSIX_VECTOR = 0x1a,
  QUEUE_ENABLE = 0x1c,
  QUEUE_NOTIFY_OFF = 0x1e,
  QUEUE_DESC = 0x20,
  QUEUE_DRIVER = 0x28,
  QUEUE_DEVICE = 0x30,
  COMMON_SIZE = 0x38,  // up to here: what follows belongs to features not offered
};

constexpr uint32_t NOTIFY_OFF_MULTIPLIER = 4;  // §4.1.4.4; one 32-bit slot per queue

// What a register write asks of the transport's owner.
enum class TransportAction {
  NONE,
  ACTIVATE,  // start the device with features() and enabledQueues()
  RESET,     // stop the device and call resetDone(); until then the status does not read 0
  CLEARED,   // the driver reset an inactive device: all registers are as at first
  VECTORS,   // configVector() or a queueVector() changed
};

// The registers of the virtio-pci modern transport (§4.1.4.3 to §4.1.4.6) as a state machine. It
// knows no fd, no KVM and no guest memory: an access is a function of the state, and what has to
// happen outside is returned.
//
// Any access is answered. What a driver must not do changes nothing: a write of another width than
// the register's, to a read-only register, of a value out of range, or at a time the specification
// forbids. Not synchronized.
class VirtioTransport {
 public:
  // `vectorCount`: MSI-X vectors the function has. The rest is as DeviceDescription has it.
  VirtioTransport(const DeviceDescription& description, uint16_t vectorCount);

  void readCommon(uint64_t offset, kj::ArrayPtr<kj::byte> data) const;
  KJ_WARN_UNUSED_RESULT TransportAction writeCommon(uint64_t offset,
                                                    kj::ArrayPtr<const kj::byte> data);

  // Bytes past the end read as zero.
  void readConfig(uint64_t offset, kj::ArrayPtr<kj::byte> data) const;

  // Changes the bits the device lets a driver change. Returns how many of the bytes, from `offset`
  // on, the device is to be told: 0 when none of them can be written, or while it is being reset.
  KJ_WARN_UNUSED_RESULT size_t writeConfig(uint64_t offset, kj::ArrayPtr<const kj::byte> data);

  // The interrupt status, which is cleared by this.
  uint8_t takeIsr();

  // The queue whose notification slot begins at `offset` of the notification structure.
  kj::Maybe<uint16_t> notifiedQueue(uint64_t offset) const;

  // The device's side. False, and nothing changed: configChanged() when the bytes pass the end,
  // needsReset() when no driver is there to be told, resetDone() when none asked for a reset.
  bool configChanged(uint64_t offset, kj::ArrayPtr<const kj::byte> data);
  bool needsReset();
  bool resetDone();
  void raiseIsr(uint8_t bits) { isr |= bits; }

  uint8_t interruptStatus() const { return isr; }

  // What writing 0 to the status does; nothing while that is still being done.
  KJ_WARN_UNUSED_RESULT TransportAction reset();

  // Whether a reset was asked for and the device has not let go yet.
  bool isResetting() const { return resetting; }

  // Between DRIVER_OK and the next reset: the only time interrupts are sent.
  bool active() const { return running && !resetting; }

  uint64_t features() const { return driverFeatures; }
  kj::Array<QueueSettings> enabledQueues() const;
  uint16_t queueCount() const { return queues.size(); }
  uint16_t configVector() const { return configMsixVector; }
  uint16_t queueVector(uint16_t queue) const { return queues[queue].vector; }
  kj::ArrayPtr<const kj::byte> configBytes() const { return config; }

 private:
  struct Queue {
    uint16_t maxSize;
    uint16_t size;
    uint16_t vector;
    bool enabled;
    uint64_t addresses[3];  // descriptor table, driver area, device area

    explicit Queue(uint16_t maxSize);
  };

  void clear();
  TransportAction write16(uint64_t offset, uint16_t value);
  TransportAction write32(uint64_t offset, uint32_t value);
  TransportAction writeStatus(uint8_t value);
  TransportAction writeQueueRegister(uint64_t offset, uint16_t value);
  void writeAddress(uint64_t offset, uint64_t value, uint64_t mask);
  bool featuresAcceptable() const;
  uint16_t checkedVector(uint16_t vector) const;
  kj::Maybe<const Queue&> selectedQueue() const;

  const uint64_t offeredFeatures;
  const uint16_t vectorCount;
  const kj::Array<const kj::byte> configWriteMask;
  kj::Array<kj::byte> config;
  uint8_t configGeneration = 0;
  kj::Array<Queue> queues;

  uint32_t deviceFeatureSelect;
  uint32_t driverFeatureSelect;
  uint64_t driverFeatures;
  uint16_t configMsixVector;
  uint16_t queueSelect;
  uint8_t status;
  uint8_t isr;
  bool running;    // the device was activated
  bool resetting;  // and is being stopped
};

}  // namespace troupe::broker
