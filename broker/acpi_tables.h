#pragma once

#include <cstdint>
#include <vector>

#include "broker/guest_ram.h"

namespace troupe::broker {

struct AcpiMachine {
  uint32_t vcpus;               // 1 to 255; the APIC id of each is its number
  uint64_t ramEnd;              // first address above all RAM
  uint8_t physicalAddressBits;  // of the guest's CPUs
};

// The machine as its operating system is told of it (ACPI 6.5): a hardware-reduced platform with
// I/O APIC and local APICs, one PCI Express root, a serial port and a power button.
//
// The bytes belong at ACPI_TABLES_ADDRESS; the RSDP comes first.
std::vector<uint8_t> acpiTables(const AcpiMachine& machine);

// The DSDT among them.
std::vector<uint8_t> dsdt(const AcpiMachine& machine);

// Puts acpiTables() into `ram` and returns the address of the RSDP.
uint64_t writeAcpiTables(const GuestRam& ram, const AcpiMachine& machine);

}  // namespace troupe::broker
