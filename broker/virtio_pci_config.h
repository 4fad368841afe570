#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>

#include <cstdint>

#include "broker/pci_config.h"

namespace troupe::broker {

// BAR 0 of every virtio function: one page per structure, so that each could be mapped or trapped
// by itself. Offsets from the start of the BAR; the last two pages are empty.
constexpr uint32_t BAR_SIZE = 0x8000;
constexpr uint32_t BAR_PAGE = 0x1000;
constexpr uint32_t BAR_COMMON = 0x0000;   // common configuration, §4.1.4.3
constexpr uint32_t BAR_ISR = 0x1000;      // ISR status, §4.1.4.5
constexpr uint32_t BAR_DEVICE = 0x2000;   // device-specific configuration, §4.1.4.6
constexpr uint32_t BAR_NOTIFY = 0x3000;   // notification, §4.1.4.4: 4 bytes per queue
constexpr uint32_t BAR_TABLE = 0x4000;    // MSI-X table: 16 bytes per vector
constexpr uint32_t BAR_PENDING = 0x5000;  // MSI-X pending bits

constexpr uint8_t CAP_COMMON = 1;  // VIRTIO_PCI_CAP_*, §4.1.4
constexpr uint8_t CAP_NOTIFY = 2;
constexpr uint8_t CAP_ISR = 3;
constexpr uint8_t CAP_DEVICE = 4;
constexpr uint8_t CAP_PCI_CFG = 5;

// The configuration space of a virtio function (§4.1.2, §4.1.4): its ids, its BAR, its list of
// capabilities. Not synchronized.
class VirtioPciConfig {
 public:
  // `address` and `gsi`: where BAR 0 lies and which pin INTA is, as firmware would leave them.
  VirtioPciConfig(uint16_t deviceType, uint16_t queueCount, uint32_t configSize, uint32_t address,
                  uint8_t gsi);

  // As after power-on, and as firmware would leave it: the BAR where it was, all else off.
  void powerOn() { space = *fresh; }

  void read(uint32_t offset, kj::ArrayPtr<kj::byte> data) const { space.read(offset, data); }
  void write(uint32_t offset, kj::ArrayPtr<const kj::byte> data) { space.write(offset, data); }

  uint16_t command() const { return space.get16(PCI_COMMAND); }
  uint32_t barAddress() const { return space.get32(PCI_BAR0); }
  uint16_t msixControl() const { return space.get16(msixCapability + 2); }
  void setInterruptStatus(bool interrupting);

  // Where in the BAR an access of pci_cfg_data leads (§4.1.4.9.1). None for an access of anything
  // else, and for one whose window the specification forbids: it finds a register that reads as
  // zero.
  kj::Maybe<uint32_t> windowTarget(uint32_t offset, size_t size) const;

 private:
  void addMsix(uint16_t vectorCount);
  void addVirtio(uint8_t type, uint32_t offset, uint32_t length);
  void addNotify(uint32_t length);
  void addWindow();

  PciConfigSpace space;
  kj::Own<const PciConfigSpace> fresh;
  uint8_t msixCapability = 0;
  uint8_t windowCapability = 0;
};

}  // namespace troupe::broker
