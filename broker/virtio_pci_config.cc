#include "broker/virtio_pci_config.h"

#include <cstring>

#include "broker/msix.h"
#include "broker/virtio_transport.h"

namespace troupe::broker {
namespace {

constexpr uint16_t VIRTIO_VENDOR = 0x1af4;        // §4.1.2
constexpr uint16_t VIRTIO_DEVICE_BASE = 0x1040;   // plus the device type
constexpr uint16_t VIRTIO_SUBSYSTEM_BASE = 0x40;  // 0x40 and up: not a transitional device

// What lspci calls a device of this virtio type.
uint32_t classCode(uint16_t deviceType) {
  switch (deviceType) {
    case 1:
      return 0x020000;  // network: Ethernet controller
    case 2:
      return 0x018000;  // mass storage, of no named kind
    case 3:
      return 0x078000;  // communication, of no named kind
    default:
      return 0x00ff00;  // none of the classes
  }
}

PciIdentity identity(uint16_t deviceType) {
  PciIdentity identity;
  identity.vendor = VIRTIO_VENDOR;
  identity.device = VIRTIO_DEVICE_BASE + deviceType;
  identity.revision = 1;  // §4.1.2.1: not transitional
  identity.classCode = classCode(deviceType);
  identity.subsystemVendor = VIRTIO_VENDOR;
  identity.subsystem = VIRTIO_SUBSYSTEM_BASE + deviceType;
  return identity;
}

// struct virtio_pci_cap (§4.1.4) behind its first two bytes, which PciConfigSpace writes.
struct CapabilityBody {
  uint8_t length;  // of the whole capability
  uint8_t type;
  uint8_t bar;
  uint8_t id;
  uint8_t padding[2];
  uint32_t offset;
  uint32_t structureLength;
  uint32_t extra;  // notify_off_multiplier, or pci_cfg_data; absent from the others
} __attribute__((packed));
static_assert(sizeof(CapabilityBody) == 18, "layout fixed by §4.1.4");

constexpr uint32_t SHORT_BODY = 14;  // without `extra`
constexpr uint32_t WINDOW_BAR = 4;   // offsets in VIRTIO_PCI_CAP_PCI_CFG
constexpr uint32_t WINDOW_OFFSET = 8;
constexpr uint32_t WINDOW_LENGTH = 12;
constexpr uint32_t WINDOW_DATA = 16;

uint8_t add(PciConfigSpace& space, uint8_t id, const void* body, const void* mask, size_t size) {
  return space.addCapability(id, kj::arrayPtr(static_cast<const kj::byte*>(body), size),
                             kj::arrayPtr(static_cast<const kj::byte*>(mask), size));
}

}  // namespace

VirtioPciConfig::VirtioPciConfig(uint16_t deviceType, uint16_t queueCount, uint32_t configSize,
                                 uint32_t address, uint8_t gsi)
    : space(identity(deviceType)) {
  space.setBar0(BAR_SIZE, address);
  space.setInterrupt(gsi);
  addMsix(queueCount + 1);
  addVirtio(CAP_COMMON, BAR_COMMON, COMMON_SIZE);
  addVirtio(CAP_ISR, BAR_ISR, 1);
  if (configSize > 0) addVirtio(CAP_DEVICE, BAR_DEVICE, configSize);
  addNotify(queueCount * NOTIFY_OFF_MULTIPLIER);
  addWindow();
  fresh = kj::heap<PciConfigSpace>(space);
}

void VirtioPciConfig::addMsix(uint16_t vectorCount) {
  struct {
    uint16_t control;
    uint32_t table;
    uint32_t pending;
  } __attribute__((packed)) body = {}, mask = {};  // PCI Local Bus 3.0, §6.8.2
  body.control = vectorCount - 1;                  // the field holds the size less one
  body.table = BAR_TABLE;                          // the low three bits name BAR 0
  body.pending = BAR_PENDING;
  mask.control = MSIX_CONTROL_ENABLE | MSIX_CONTROL_FUNCTION_MASK;
  msixCapability = add(space, PCI_CAPABILITY_MSIX, &body, &mask, sizeof body);
}

void VirtioPciConfig::addVirtio(uint8_t type, uint32_t offset, uint32_t length) {
  CapabilityBody body = {SHORT_BODY + 2, type, 0, 0, {}, offset, length, 0};
  CapabilityBody mask = {};
  add(space, PCI_CAPABILITY_VENDOR, &body, &mask, SHORT_BODY);
}

void VirtioPciConfig::addNotify(uint32_t length) {
  CapabilityBody body = {sizeof body + 2, CAP_NOTIFY,           0, 0, {}, BAR_NOTIFY,
                         length,          NOTIFY_OFF_MULTIPLIER};
  CapabilityBody mask = {};
  add(space, PCI_CAPABILITY_VENDOR, &body, &mask, sizeof body);
}

void VirtioPciConfig::addWindow() {
  CapabilityBody body = {sizeof body + 2, CAP_PCI_CFG, 0, 0, {}, 0, 0, 0};
  CapabilityBody mask = {};
  mask.bar = 0xff;
  mask.offset = ~0u;
  mask.structureLength = ~0u;
  windowCapability = add(space, PCI_CAPABILITY_VENDOR, &body, &mask, sizeof body);
}

void VirtioPciConfig::setInterruptStatus(bool interrupting) {
  uint16_t status = space.get16(PCI_STATUS) & ~PCI_STATUS_INTERRUPT;
  space.set(PCI_STATUS, 2, interrupting ? status | PCI_STATUS_INTERRUPT : status);
}

kj::Maybe<uint32_t> VirtioPciConfig::windowTarget(uint32_t offset, size_t size) const {
  if (offset != windowCapability + WINDOW_DATA) return nullptr;
  if (size != 1 && size != 2 && size != 4) return nullptr;
  if (space.get32(windowCapability + WINDOW_LENGTH) != size) return nullptr;
  uint8_t bar = space.get16(windowCapability + WINDOW_BAR) & 0xff;
  uint32_t target = space.get32(windowCapability + WINDOW_OFFSET);
  if (bar != 0 || target % size != 0 || target > BAR_SIZE - size) return nullptr;
  return target;
}

}  // namespace troupe::broker
