#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/vector.h>

#include <array>
#include <cstdint>

namespace troupe::broker {

constexpr uint32_t PCI_CONFIG_SIZE = 4096;  // PCI Express Base 5.0, §7.2.2

// Registers every function has (PCI Local Bus 3.0, §6.1).
constexpr uint32_t PCI_COMMAND = 0x04;
constexpr uint32_t PCI_STATUS = 0x06;
constexpr uint32_t PCI_BAR0 = 0x10;
constexpr uint32_t PCI_CAPABILITY_POINTER = 0x34;
constexpr uint32_t PCI_INTERRUPT_LINE = 0x3c;
constexpr uint32_t PCI_INTERRUPT_PIN = 0x3d;

constexpr uint16_t PCI_COMMAND_MEMORY = 1 << 1;
constexpr uint16_t PCI_COMMAND_MASTER = 1 << 2;
constexpr uint16_t PCI_COMMAND_INTX_DISABLE = 1 << 10;
constexpr uint16_t PCI_STATUS_INTERRUPT = 1 << 3;
constexpr uint16_t PCI_STATUS_CAPABILITIES = 1 << 4;

constexpr uint8_t PCI_CAPABILITY_VENDOR = 0x09;
constexpr uint8_t PCI_CAPABILITY_MSIX = 0x11;

// Who a function says it is.
struct PciIdentity {
  uint16_t vendor;
  uint16_t device;
  uint8_t revision;
  uint32_t classCode;  // base class, subclass, interface: 24 bits
  uint16_t subsystemVendor;
  uint16_t subsystem;
};

// The 4 KiB of one function's configuration space (type 0 header): bytes, and which of their bits
// the guest may change. A value without side effects; not synchronized.
class PciConfigSpace {
 public:
  explicit PciConfigSpace(const PciIdentity& identity);

  // Appends a capability to the list: `body` follows the two bytes of id and link, and the guest
  // may change the bits of `mask`, which is as long. Returns its offset.
  uint8_t addCapability(uint8_t id, kj::ArrayPtr<const kj::byte> body,
                        kj::ArrayPtr<const kj::byte> mask);

  // Makes BAR 0 a 32-bit memory BAR of `size` bytes (a power of two) at `address`.
  void setBar0(uint32_t size, uint32_t address);

  // INTA, and the scratch register in which firmware leaves the pin of the interrupt controller.
  void setInterrupt(uint8_t line);

  // Guest accesses, any size and alignment. Bytes past the end read as ones and are not written.
  void read(uint32_t offset, kj::ArrayPtr<kj::byte> data) const;
  void write(uint32_t offset, kj::ArrayPtr<const kj::byte> data);

  // Our own, whatever the masks say.
  uint16_t get16(uint32_t offset) const;
  uint32_t get32(uint32_t offset) const;
  void set(uint32_t offset, uint32_t width, uint32_t value);

 private:
  void setMask(uint32_t offset, uint32_t width, uint32_t mask);

  std::array<kj::byte, PCI_CONFIG_SIZE> bytes = {};
  std::array<kj::byte, PCI_CONFIG_SIZE> writable = {};
  uint8_t capabilityEnd = 0x40;  // the first free byte behind the header
  uint32_t lastLink = PCI_CAPABILITY_POINTER;
};

}  // namespace troupe::broker
