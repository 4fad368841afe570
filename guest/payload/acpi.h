#pragma once

#include <stdint.h>

#include "guest/payload/start_info.h"

// What the firmware's ACPI tables say of this machine (ACPI 6.4).
namespace payload {

// A register in one of the address spaces ACPI knows (§5.2.3.2).
struct AcpiRegister {
  enum Space : uint8_t { MEMORY = 0, PORT = 1 };
  uint8_t space;
  uint64_t address;  // 0: there is none

  explicit operator bool() const { return address != 0; }
};

constexpr unsigned MAX_IO_APICS = 4;

struct Acpi {
  bool rsdpFound;
  bool checksumsGood;
  unsigned tableCount;

  // MCFG, or where there is none (QEMU's microvm) _CBA in the DSDT
  uint64_t ecam;  // of segment 0, at its bus 0; 0: none

  // MADT
  uint32_t localApic;
  uint32_t ioApics[MAX_IO_APICS];
  unsigned ioApicCount;

  // FADT
  bool hardwareReduced;
  AcpiRegister sleepControl;
  AcpiRegister pm1aControl;
  AcpiRegister pmTimer;
  AcpiRegister reset;
  uint8_t resetValue;

  // DSDT
  bool hasS5;
  uint8_t s5Type;
  uint64_t configBase;
};

Acpi readAcpi(const StartInfo& info);

// Asks the machine to turn itself off, or to start again; return when it did not.
void powerOff(const Acpi& acpi);
void reset(const Acpi& acpi);

}  // namespace payload
