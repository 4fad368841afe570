#pragma once

#include <cstdint>

// Where things lie in the guest's physical address space and I/O ports.
namespace troupe::broker {

constexpr uint64_t KIB = 1024;
constexpr uint64_t MIB = 1024 * KIB;
constexpr uint64_t GIB = 1024 * MIB;

// RAM from 0 up to the hole, the rest from 4 GiB on.
constexpr uint64_t LOW_RAM_END = 3 * GIB;
constexpr uint64_t HIGH_RAM_START = 4 * GIB;

// The hole.
constexpr uint64_t MMIO32_START = 0xc0000000;  // BARs that must lie below 4 GiB
constexpr uint64_t MMIO32_END = 0xe0000000;
constexpr uint64_t ECAM_START = 0xe0000000;  // 256 buses, 1 MiB each (PCI Firmware 3.3, §4.1)
constexpr uint64_t ECAM_SIZE = 256 * MIB;
constexpr uint64_t IOAPIC_ADDRESS = 0xfec00000;
constexpr uint64_t LAPIC_ADDRESS = 0xfee00000;
constexpr uint64_t KVM_TSS_ADDRESS = 0xfffbd000;  // three pages KVM wants on Intel
constexpr uint64_t KVM_IDENTITY_MAP_ADDRESS = 0xfffbc000;

// Ports.
constexpr uint16_t I8042_COMMAND_PORT = 0x64;
constexpr uint16_t SERIAL_PORT = 0x3f8;  // eight of them
constexpr uint16_t PANIC_PORT = 0x505;   // pvpanic
constexpr uint16_t ACPI_PORT = 0x600;    // sleep control, sleep status, reset, power button
constexpr uint16_t PCI_CONFIG_ADDRESS_PORT = 0xcf8;
constexpr uint16_t PCI_CONFIG_DATA_PORT = 0xcfc;

// Interrupts (global system interrupts of the one I/O APIC, 24 pins).
constexpr uint32_t SERIAL_GSI = 4;
constexpr uint32_t ACPI_GSI = 9;
constexpr uint32_t FIRST_INTX_GSI = 16;  // INTx of slot s, pin p (0 = A): 16 + (s + p) % 8
constexpr uint32_t INTX_GSI_COUNT = 8;
constexpr uint32_t FIRST_MSI_GSI = 24;

}  // namespace troupe::broker
