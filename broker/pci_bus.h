#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>

#include <cstdint>

#include "broker/bus.h"

namespace troupe::broker {

// One function in the configuration space of the guest's PCI bus. Called on vCPU threads, several
// at once: an implementation locks for itself and never waits for a device process.
class PciFunction {
 public:
  // Any size and alignment, but `offset` + size is at most 4096.
  virtual void configRead(uint32_t offset, kj::ArrayPtr<kj::byte> data) = 0;
  virtual void configWrite(uint32_t offset, kj::ArrayPtr<const kj::byte> data) = 0;
};

// PCI bus 0: a host bridge at 00:00.0 and one function in each slot from 1 on, reached through ECAM
// (`mmio`) and through the ports CF8h and CFCh (`pio`). Buses 1 to 255, functions 1 to 7 and empty
// slots answer all ones.
//
// add() and allocateMmio() belong to set-up: main thread, before the first vCPU runs. Everything
// else happens through the two buses, on any thread. `mmio` and `pio` outlive this object.
class PciBus {
 public:
  PciBus(Bus& mmio, Bus& pio);
  ~PciBus() noexcept(false);
  KJ_DISALLOW_COPY(PciBus);

  // Puts `function`, which outlives this object's use by vCPUs, into the next slot: 1 to 31. Throws
  // TRP-pci-001 when the bus is full.
  uint8_t add(PciFunction& function);

  // A naturally aligned address for a BAR below 4 GiB. `size` is a power of two. The
  // window holds far more than 31 functions ask for.
  uint32_t allocateMmio(uint32_t size);

  // The ports select nothing, as after power-on. Functions are reset one by one.
  void powerOn();

  // The I/O APIC pin of INTA of `slot`, as the ACPI routing table has it.
  static uint32_t intxGsi(uint8_t slot);

 private:
  struct State;
  kj::Own<State> state;
};

}  // namespace troupe::broker
