#pragma once

#include <stdint.h>

#include "guest/payload/acpi.h"
#include "guest/payload/interrupts.h"
#include "guest/payload/machine.h"

// PCI bus 0 by its memory-mapped configuration space (PCI Express base specification, §7.2.2).
namespace payload {

class PciBus;

// One function, by the address of its configuration space.
class PciFunction {
 public:
  PciFunction() = default;
  explicit PciFunction(uint64_t config) : config(config) {}

  unsigned slot() const { return config >> 15 & 31; }
  unsigned number() const { return config >> 12 & 7; }

  uint16_t vendor() const { return read<uint16_t>(0x00); }
  uint16_t device() const { return read<uint16_t>(0x02); }
  bool isBridge() const { return (read<uint8_t>(0x0e) & 0x7f) == 1; }

  template <typename T>
  T read(unsigned offset) const {
    return readRegister<T>(config + offset);
  }
  template <typename T>
  void write(unsigned offset, T value) const {
    writeRegister<T>(config + offset, value);
  }

  // Offset of the first capability `id` behind capability `after` (0: of all); 0 when there is
  // none.
  unsigned capability(uint8_t id, unsigned after = 0) const;

  // Turns memory decoding and DMA on, after every BAR in use has its place.
  void enableWithIntx() const;
  // The same with MSI-X, vector 0 sending `message`. False when the function has none.
  bool enableWithMsix(PciBus& bus, Message message) const;

 private:
  uint64_t config = 0;
};

// The functions of bus 0 and the address space for BARs that firmware left unassigned.
class PciBus {
 public:
  // `acpi.ecam` is not 0.
  explicit PciBus(const Acpi& acpi);

  unsigned functionCount() const { return count; }
  PciFunction function(unsigned index) const { return functions[index]; }

  // Where memory BAR `index` of `function` lies, mapped; assigned now if it was not. 0 when that
  // fails: an I/O BAR, a window that is full.
  uint64_t bar(const PciFunction& function, unsigned index);

  // The first 32 bits of the configuration space of the first function, by the ports 0xcf8 and
  // 0xcfc; all ones where nobody answers them.
  uint32_t firstByPorts() const;

  unsigned assignedHere() const { return assigned; }

 private:
  static constexpr unsigned MAX_FUNCTIONS = 64;
  PciFunction functions[MAX_FUNCTIONS];
  unsigned count = 0;
  unsigned assigned = 0;
  uint64_t next = 0;  // free from here in the window; 0 before the first assignment

  void findFree();
  bool assign(const PciFunction& function, unsigned offset);
};

}  // namespace payload
