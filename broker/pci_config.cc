#include "broker/pci_config.h"

#include <kj/debug.h>

#include <cstring>

namespace troupe::broker {

PciConfigSpace::PciConfigSpace(const PciIdentity& identity) {
  set(0x00, 2, identity.vendor);
  set(0x02, 2, identity.device);
  set(0x08, 4, identity.classCode << 8 | identity.revision);
  set(0x2c, 2, identity.subsystemVendor);
  set(0x2e, 2, identity.subsystem);
  setMask(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
}

uint8_t PciConfigSpace::addCapability(uint8_t id, kj::ArrayPtr<const kj::byte> body,
                                      kj::ArrayPtr<const kj::byte> mask) {
  uint32_t size = (2 + body.size() + 3) & ~3u;  // capabilities begin at a multiple of four
  KJ_REQUIRE(body.size() == mask.size() && capabilityEnd + size <= 0xfc, capabilityEnd, size);
  uint8_t offset = capabilityEnd;
  set(lastLink, 1, offset);
  set(offset, 1, id);
  memcpy(&bytes[offset + 2], body.begin(), body.size());
  memcpy(&writable[offset + 2], mask.begin(), mask.size());
  set(PCI_STATUS, 2, get16(PCI_STATUS) | PCI_STATUS_CAPABILITIES);
  lastLink = offset + 1;
  capabilityEnd += size;
  return offset;
}

void PciConfigSpace::setBar0(uint32_t size, uint32_t address) {
  KJ_REQUIRE(size >= 16 && (size & (size - 1)) == 0 && address % size == 0, size, address);
  set(PCI_BAR0, 4, address);  // low bits 0: 32-bit memory, not prefetchable
  setMask(PCI_BAR0, 4, ~(size - 1));
}

void PciConfigSpace::setInterrupt(uint8_t line) {
  set(PCI_INTERRUPT_PIN, 1, 1);
  set(PCI_INTERRUPT_LINE, 1, line);
  setMask(PCI_INTERRUPT_LINE, 1, 0xff);
}

void PciConfigSpace::read(uint32_t offset, kj::ArrayPtr<kj::byte> data) const {
  for (auto& byte : data) {
    byte = offset < PCI_CONFIG_SIZE ? bytes[offset++] : 0xff;
  }
}

void PciConfigSpace::write(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  for (auto byte : data) {
    if (offset >= PCI_CONFIG_SIZE) return;
    bytes[offset] = (bytes[offset] & ~writable[offset]) | (byte & writable[offset]);
    ++offset;
  }
}

uint16_t PciConfigSpace::get16(uint32_t offset) const {
  return bytes[offset] | bytes[offset + 1] << 8;
}

uint32_t PciConfigSpace::get32(uint32_t offset) const {
  return get16(offset) | static_cast<uint32_t>(get16(offset + 2)) << 16;
}

void PciConfigSpace::set(uint32_t offset, uint32_t width, uint32_t value) {
  for (uint32_t i = 0; i < width; ++i)
    bytes[offset + i] = value >> 8 * i;
}

void PciConfigSpace::setMask(uint32_t offset, uint32_t width, uint32_t mask) {
  for (uint32_t i = 0; i < width; ++i)
    writable[offset + i] = mask >> 8 * i;
}

}  // namespace troupe::broker
