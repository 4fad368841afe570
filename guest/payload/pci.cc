#include "guest/payload/pci.h"

#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr unsigned COMMAND = 0x04;
constexpr unsigned STATUS = 0x06;
constexpr unsigned BAR0 = 0x10;
constexpr unsigned CAPABILITIES = 0x34;

constexpr uint16_t COMMAND_MEMORY = 1 << 1;
constexpr uint16_t COMMAND_MASTER = 1 << 2;
constexpr uint16_t COMMAND_INTX_OFF = 1 << 10;
constexpr uint16_t STATUS_CAPABILITIES = 1 << 4;

constexpr uint32_t BAR_IO = 1;
constexpr uint32_t BAR_64 = 4;
constexpr uint32_t BAR_FLAGS = 15;

constexpr uint8_t CAPABILITY_MSIX = 0x11;
constexpr uint16_t MSIX_ENABLE = 1 << 15;
constexpr unsigned MAX_CAPABILITIES = 48;  // as many as fit; a list in a circle ends there

// QEMU's microvm and q35 and our own broker all decode this range for PCI, above RAM and below any
// ECAM at 0xe0000000.
constexpr uint64_t WINDOW_START = 0xc0000000;
constexpr uint64_t WINDOW_END = 0xe0000000;

bool is64(uint32_t bar) {
  return !(bar & BAR_IO) && (bar & 6) == BAR_64;
}

uint64_t addressOf(const PciFunction& function, unsigned offset) {
  uint32_t low = function.read<uint32_t>(offset);
  uint64_t high = is64(low) ? function.read<uint32_t>(offset + 4) : 0;
  return high << 32 | (low & ~BAR_FLAGS);
}

// Writes ones and sees what stays (PCI 3.0, §6.2.5.1); the value is put back. Decoding is off
// meanwhile. 0 when there is no memory BAR of at most 2 GiB.
uint64_t sizeOf(const PciFunction& function, unsigned offset) {
  uint16_t command = function.read<uint16_t>(COMMAND);
  function.write<uint16_t>(COMMAND, command & ~COMMAND_MEMORY);
  uint32_t before = function.read<uint32_t>(offset);
  function.write<uint32_t>(offset, ~0u);
  uint32_t mask = function.read<uint32_t>(offset) & ~BAR_FLAGS;
  function.write<uint32_t>(offset, before);
  function.write<uint16_t>(COMMAND, command);
  return (before & BAR_IO) || !mask ? 0 : ~mask + 1u;
}

}  // namespace

unsigned PciFunction::capability(uint8_t id, unsigned after) const {
  if (!after && !(read<uint16_t>(STATUS) & STATUS_CAPABILITIES)) {
    return 0;
  }
  unsigned offset = read<uint8_t>(after ? after + 1 : CAPABILITIES) & ~3u;
  for (unsigned i = 0; i < MAX_CAPABILITIES && offset >= 0x40; ++i) {
    auto header = read<uint16_t>(offset);
    if ((header & 0xff) == id) {
      return offset;
    }
    offset = header >> 8 & ~3u;
  }
  return 0;
}

void PciFunction::enableWithIntx() const {
  write<uint16_t>(COMMAND, COMMAND_MEMORY | COMMAND_MASTER);
}

bool PciFunction::enableWithMsix(PciBus& bus, Message message) const {
  unsigned msix = capability(CAPABILITY_MSIX);
  auto where = msix ? read<uint32_t>(msix + 4) : 0;
  uint64_t table = msix ? bus.bar(*this, where & 7) : 0;
  if (!table) {
    return false;
  }
  table += where & ~7u;
  write<uint16_t>(COMMAND, COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_OFF);
  write<uint16_t>(msix + 2, read<uint16_t>(msix + 2) | MSIX_ENABLE);
  // One vector is all the payload uses; the others stay masked, as reset left them.
  writeRegister<uint32_t>(table, message.address);
  writeRegister<uint32_t>(table + 4, message.address >> 32);
  writeRegister<uint32_t>(table + 8, message.data);
  writeRegister<uint32_t>(table + 12, 0);
  return true;
}

PciBus::PciBus(const Acpi& acpi) {
  mapThrough(acpi.ecam, 1 << 20);
  for (unsigned slot = 0; slot < 32; ++slot) {
    for (unsigned number = 0; number < 8 && count < MAX_FUNCTIONS; ++number) {
      PciFunction function(acpi.ecam + (slot << 15) + (number << 12));
      if (function.vendor() != 0xffff) {
        functions[count++] = function;
      }
      constexpr uint8_t MULTIFUNCTION = 0x80;
      if (number == 0 &&
          (function.vendor() == 0xffff || !(function.read<uint8_t>(0x0e) & MULTIFUNCTION))) {
        break;
      }
    }
  }
}

uint32_t PciBus::firstByPorts() const {
  constexpr uint32_t ENABLE = 1u << 31;
  outLong(0xcf8, ENABLE | functions[0].slot() << 11 | functions[0].number() << 8);
  return inLong(0xcfc);
}

// The first address behind every BAR that firmware put into the window.
void PciBus::findFree() {
  next = WINDOW_START;
  for (unsigned i = 0; i < count; ++i) {
    unsigned end = BAR0 + (functions[i].isBridge() ? 2 : 6) * 4;
    for (unsigned offset = BAR0; offset < end; offset += 4) {
      uint32_t low = functions[i].read<uint32_t>(offset);
      uint64_t address = addressOf(functions[i], offset);
      if (!(low & BAR_IO) && address >= WINDOW_START && address < WINDOW_END) {
        uint64_t behind = address + sizeOf(functions[i], offset);
        next = behind > next ? behind : next;
      }
      offset += is64(low) ? 4 : 0;
    }
  }
}

bool PciBus::assign(const PciFunction& function, unsigned offset) {
  if (!next) {
    findFree();
  }
  uint64_t size = sizeOf(function, offset);
  // A page at least: hypervisors map and watch registers by the page.
  uint64_t alignment = size < 4096 ? 4096 : size;
  uint64_t address = (next + alignment - 1) & ~(alignment - 1);
  if (size == 0 || address + size > WINDOW_END) {
    return false;
  }
  if (is64(function.read<uint32_t>(offset))) {
    function.write<uint32_t>(offset + 4, 0);
  }
  function.write<uint32_t>(offset, address);
  next = address + size;
  ++assigned;
  return true;
}

uint64_t PciBus::bar(const PciFunction& function, unsigned index) {
  unsigned offset = BAR0 + 4 * index;
  if (index > 5 || (function.read<uint32_t>(offset) & BAR_IO)) {
    return 0;
  }
  if (!addressOf(function, offset) && !assign(function, offset)) {
    return 0;
  }
  uint64_t address = addressOf(function, offset);
  mapThrough(address, 1 << 20);  // larger than what virtio devices keep in one BAR
  return address;
}

}  // namespace payload
