#include "broker/virtio_transport.h"

#include <kj/vector.h>

#include <cstring>

#include "broker/msix.h"
#include "tests/fuzz/planted.h"

namespace troupe::broker {
namespace {

using fuzz::Bug;
using fuzz::isPlanted;

constexpr uint8_t STATUS_DRIVER_BITS =
    STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK | STATUS_FAILED;

template <typename T>
T load(kj::ArrayPtr<const kj::byte> data) {
  T value;
  memcpy(&value, data.begin(), sizeof value);
  return value;
}

template <typename T>
void store(kj::ArrayPtr<kj::byte> image, uint32_t offset, T value) {
  memcpy(&image[offset], &value, sizeof value);
}

// Copies what of [offset, offset + data.size()) lies within `bytes`; the rest becomes zero.
void copyClipped(kj::ArrayPtr<const kj::byte> bytes, uint64_t offset, kj::ArrayPtr<kj::byte> data) {
  memset(data.begin(), 0, data.size());
  if (offset >= bytes.size()) return;
  memcpy(data.begin(), &bytes[offset], kj::min(data.size(), bytes.size() - offset));
}

// One 32-bit half of a 64-bit feature set (§4.1.4.3: 0 selects bits 0 to 31, 1 bits 32 to 63).
uint32_t half(uint64_t bits, uint32_t select) {
  return select < 2 ? bits >> 32 * select : 0;
}

}  // namespace

VirtioTransport::Queue::Queue(uint16_t maxSize)
    : maxSize(maxSize), size(maxSize), vector(NO_VECTOR), enabled(false), addresses() {}

VirtioTransport::VirtioTransport(const DeviceDescription& description, uint16_t vectorCount)
    : offeredFeatures((description.features & FEATURES_CARRIED) | FEATURE_VERSION_1),
      vectorCount(vectorCount),
      configWriteMask(kj::heapArray<const kj::byte>(description.configWriteMask)),
      config(kj::heapArray<kj::byte>(description.config)),
      queues(KJ_MAP(size, description.queueSizes) { return Queue(size); }) {
  clear();
}

void VirtioTransport::clear() {
  deviceFeatureSelect = 0;
  driverFeatureSelect = 0;
  driverFeatures = 0;
  configMsixVector = NO_VECTOR;
  queueSelect = 0;
  status = 0;
  isr = 0;
  running = false;
  resetting = false;
  for (auto& queue : queues)
    queue = Queue(queue.maxSize);
}

void VirtioTransport::readCommon(uint64_t offset, kj::ArrayPtr<kj::byte> data) const {
  kj::byte bytes[COMMON_SIZE] = {};
  kj::ArrayPtr<kj::byte> image = bytes;
  store(image, DEVICE_FEATURE_SELECT, deviceFeatureSelect);
  store(image, DEVICE_FEATURE, half(offeredFeatures, deviceFeatureSelect));
  store(image, DRIVER_FEATURE_SELECT, driverFeatureSelect);
  store(image, DRIVER_FEATURE, half(driverFeatures, driverFeatureSelect));
  store(image, CONFIG_MSIX_VECTOR, configMsixVector);
  store(image, NUM_QUEUES, queueCount());
  store(image, DEVICE_STATUS, status);
  store(image, CONFIG_GENERATION, configGeneration);
  store(image, QUEUE_SELECT, queueSelect);
  store(image, QUEUE_MSIX_VECTOR, NO_VECTOR);
  // A queue that does not exist has size 0 (§4.1.4.3.2).
  KJ_IF_MAYBE (queue, selectedQueue()) {
    store(image, QUEUE_SIZE, queue->size);
    store(image, QUEUE_MSIX_VECTOR, queue->vector);
    store<uint16_t>(image, QUEUE_ENABLE, queue->enabled);
    store(image, QUEUE_NOTIFY_OFF, queueSelect);
    memcpy(&image[QUEUE_DESC], queue->addresses, sizeof queue->addresses);
  }
  copyClipped(image, offset, data);
}

TransportAction VirtioTransport::writeCommon(uint64_t offset, kj::ArrayPtr<const kj::byte> data) {
  if (resetting) return TransportAction::NONE;  // §2.1.2: the driver waits until the status is 0
  if (offset == DEVICE_STATUS && data.size() == 1) return writeStatus(data[0]);
  if (data.size() == 2) return write16(offset, load<uint16_t>(data));
  if (data.size() == 4) return write32(offset, load<uint32_t>(data));
  if (data.size() == 8 && offset % 8 == 0) writeAddress(offset, load<uint64_t>(data), ~uint64_t(0));
  return TransportAction::NONE;
}

TransportAction VirtioTransport::write16(uint64_t offset, uint16_t value) {
  if (offset == QUEUE_SELECT) {
    queueSelect = value;
  } else if (offset == CONFIG_MSIX_VECTOR) {
    configMsixVector = checkedVector(value);
    return TransportAction::VECTORS;
  } else {
    return writeQueueRegister(offset, value);
  }
  return TransportAction::NONE;
}

TransportAction VirtioTransport::write32(uint64_t offset, uint32_t value) {
  if (offset == DEVICE_FEATURE_SELECT) {
    deviceFeatureSelect = value;
  } else if (offset == DRIVER_FEATURE_SELECT) {
    driverFeatureSelect = value;
  } else if (offset == DRIVER_FEATURE) {
    // §2.2.1 and §3.1.1: what was negotiated stays until a reset.
    if ((status & STATUS_FEATURES_OK) == 0 && driverFeatureSelect < 2) {
      uint32_t shift = 32 * driverFeatureSelect;
      driverFeatures &= ~(uint64_t(0xffffffff) << shift);
      driverFeatures |= uint64_t(value) << shift;
    }
  } else if (offset % 4 == 0) {
    uint32_t shift = offset % 8 * 8;
    writeAddress(offset & ~uint64_t(7), uint64_t(value) << shift, uint64_t(0xffffffff) << shift);
  }
  return TransportAction::NONE;
}

TransportAction VirtioTransport::reset() {
  if (resetting) return TransportAction::NONE;
  if (running) {
    resetting = true;
    return TransportAction::RESET;
  }
  clear();
  return TransportAction::CLEARED;
}

TransportAction VirtioTransport::writeStatus(uint8_t value) {
  if (value == 0) return reset();

  // Bits only ever get set (§2.1.1), and DEVICE_NEEDS_RESET is not the driver's.
  uint8_t before = status;
  status |= value & (STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FAILED);
  constexpr uint8_t KNOWN = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
  uint8_t asked = value & STATUS_DRIVER_BITS & ~status;
  if ((status & KNOWN) != KNOWN) return TransportAction::NONE;
  if ((status & (STATUS_FAILED | STATUS_DEVICE_NEEDS_RESET)) != 0) return TransportAction::NONE;

  if ((asked & STATUS_FEATURES_OK) != 0 && featuresAcceptable()) status |= STATUS_FEATURES_OK;

  // A driver has to read FEATURES_OK back before it goes on (§3.1.1), so one write cannot do both.
  if ((asked & STATUS_DRIVER_OK) == 0) return TransportAction::NONE;
  if ((before & STATUS_FEATURES_OK) == 0 && !isPlanted(Bug::STATUS_ORDER)) {
    return TransportAction::NONE;
  }
  status |= STATUS_DRIVER_OK;
  running = true;
  return TransportAction::ACTIVATE;
}

bool VirtioTransport::featuresAcceptable() const {
  bool isModern = (driverFeatures & FEATURE_VERSION_1) != 0;  // §6.1
  return isModern && (driverFeatures & ~offeredFeatures) == 0;
}

TransportAction VirtioTransport::writeQueueRegister(uint64_t offset, uint16_t value) {
  if (queueSelect >= queues.size()) return TransportAction::NONE;
  Queue& queue = queues[queueSelect];
  if (offset == QUEUE_MSIX_VECTOR) {
    queue.vector = checkedVector(value);
    return TransportAction::VECTORS;
  }
  // An enabled queue is fixed until a reset, and so are all at DRIVER_OK (§3.1.1, §4.1.4.3.2).
  if (queue.enabled || running) return TransportAction::NONE;
  if (offset == QUEUE_SIZE) {
    bool isPowerOfTwo = value != 0 && (value & (value - 1)) == 0;
    if (isPowerOfTwo && value <= queue.maxSize) queue.size = value;
  } else if (offset == QUEUE_ENABLE) {
    queue.enabled = value == 1;
  }
  return TransportAction::NONE;
}

// `offset` is a multiple of 8; only the bits of `mask` change.
void VirtioTransport::writeAddress(uint64_t offset, uint64_t value, uint64_t mask) {
  if (offset < QUEUE_DESC || offset >= COMMON_SIZE || queueSelect >= queues.size()) return;
  Queue& queue = queues[queueSelect];
  if (queue.enabled || running) return;
  uint64_t& address = queue.addresses[(offset - QUEUE_DESC) / 8];
  address = (address & ~mask) | value;
}

void VirtioTransport::readConfig(uint64_t offset, kj::ArrayPtr<kj::byte> data) const {
  copyClipped(config, offset, data);
}

size_t VirtioTransport::writeConfig(uint64_t offset, kj::ArrayPtr<const kj::byte> data) {
  if (resetting || offset >= config.size()) return 0;
  size_t size = kj::min(data.size(), config.size() - offset);
  kj::byte writable = 0;
  for (size_t i = 0; i < size; ++i) {
    kj::byte mask = configWriteMask[offset + i];
    config[offset + i] = (config[offset + i] & ~mask) | (data[i] & mask);
    writable |= mask;
  }
  return writable == 0 ? 0 : size;
}

uint8_t VirtioTransport::takeIsr() {
  uint8_t bits = isr;
  isr = 0;
  return bits;
}

kj::Maybe<uint16_t> VirtioTransport::notifiedQueue(uint64_t offset) const {
  uint64_t queue = offset / NOTIFY_OFF_MULTIPLIER;
  if (offset % NOTIFY_OFF_MULTIPLIER != 0 || queue >= queues.size()) return nullptr;
  return static_cast<uint16_t>(queue);
}

bool VirtioTransport::configChanged(uint64_t offset, kj::ArrayPtr<const kj::byte> data) {
  bool fits = offset <= config.size() && data.size() <= config.size() - offset;
  if (!fits && !isPlanted(Bug::CONFIG_BOUNDS)) return false;
  // A device may say that nothing changed; no bytes may be at no address, which memcpy() forbids.
  if (data.size() > 0) memcpy(config.begin() + offset, data.begin(), data.size());
  ++configGeneration;  // §2.5.1
  return true;
}

bool VirtioTransport::needsReset() {
  if (!active()) return false;
  status |= STATUS_DEVICE_NEEDS_RESET;
  return true;
}

bool VirtioTransport::resetDone() {
  if (!resetting) return false;
  clear();
  return true;
}

kj::Array<QueueSettings> VirtioTransport::enabledQueues() const {
  kj::Vector<QueueSettings> settings;
  for (uint16_t i = 0; i < queues.size(); ++i) {
    const Queue& queue = queues[i];
    if (!queue.enabled) continue;
    settings.add(
        QueueSettings{i, queue.size, queue.addresses[0], queue.addresses[1], queue.addresses[2]});
  }
  return settings.releaseAsArray();
}

uint16_t VirtioTransport::checkedVector(uint16_t vector) const {
  return vector < vectorCount ? vector : NO_VECTOR;  // §4.1.5.1.2: a refusal reads back
}

kj::Maybe<const VirtioTransport::Queue&> VirtioTransport::selectedQueue() const {
  if (queueSelect >= queues.size()) return nullptr;
  return queues[queueSelect];
}

}  // namespace troupe::broker
