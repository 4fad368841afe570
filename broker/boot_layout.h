#pragma once

#include <cstdint>

#include "broker/memory_map.h"

// Where the broker puts what a kernel finds at its first instruction. All of it lies below 1 MiB,
// where no kernel is loaded, and where a PC keeps its firmware's tables.
namespace troupe::broker {

constexpr uint64_t BOOT_GDT_ADDRESS = 0x500;
constexpr uint64_t PVH_START_INFO_ADDRESS = 0x6000;
constexpr uint64_t PVH_MODULE_ADDRESS = 0x6040;
constexpr uint64_t PVH_MEMORY_MAP_ADDRESS = 0x6080;
constexpr uint64_t BOOT_PARAMS_ADDRESS = 0x7000;       // Linux's "zero page"
constexpr uint64_t BOOT_PAGE_TABLES_ADDRESS = 0x9000;  // six pages
constexpr uint64_t COMMAND_LINE_ADDRESS = 0x20000;
constexpr uint64_t COMMAND_LINE_ROOM = 0x10000;  // the closing zero byte included
constexpr uint64_t LOW_MEMORY_END = 0xa0000;     // RAM that a kernel may use later on

// ACPI tables, where a search for the RSDP also finds them (ACPI 6.5, §5.2.5.1).
constexpr uint64_t ACPI_TABLES_ADDRESS = 0xe0000;
constexpr uint64_t ACPI_TABLES_ROOM = 0x1fff0;

// Where a PC's firmware begins: F000:FFF0 in real mode, 16 bytes.
constexpr uint64_t RESET_VECTOR_ADDRESS = 0xffff0;

// The lowest address of a kernel.
constexpr uint64_t KERNEL_FLOOR = 0x100000;

}  // namespace troupe::broker
