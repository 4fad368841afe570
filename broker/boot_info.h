#pragma once

#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>

#include <cstdint>

#include "broker/boot_file.h"
#include "broker/boot_image.h"
#include "broker/guest_ram.h"

namespace troupe::broker {

// A piece of the guest's physical address space, with a type that e820 and PVH share.
struct MemoryMapEntry {
  static constexpr uint32_t RAM = 1;
  static constexpr uint32_t RESERVED = 2;
  uint64_t address;
  uint64_t size;
  uint32_t type;
};

// What the guest is told about its memory: sorted, without overlaps. `reserved` meet no RAM.
kj::Vector<MemoryMapEntry> memoryMap(const GuestRam& ram,
                                     kj::ArrayPtr<const RamRange> reserved = nullptr);

// Where the first vCPU begins.
struct BootState {
  BootProtocol protocol;
  uint64_t entry;
  uint64_t info;  // address of boot_params (LINUX64) or of the start info (PVH)
};

// What a kernel is given beside itself.
struct BootExtras {
  kj::Maybe<const BootFile&> initrd;
  kj::StringPtr commandLine;
  kj::Maybe<const BootFile&> deviceTree = nullptr;  // for Linux alone
};

// Puts everything a kernel finds at its first instruction beside it into RAM: command line, initrd
// (as high as kernel and memory allow), device tree (below it), descriptor table, page tables, and
// the structure of the protocol that points to them and to the ACPI tables at `rsdp`; for Zircon
// its data container, which takes more from `kernelFile`. `reserved`: where the guest finds memory
// that is no RAM. Throws TRP-boot-009 when something does
// not fit, TRP-boot-010 or -011 for a command line the kernel cannot be given, TRP-boot-018 for a
// device tree that is none or that no Linux would get.
BootState writeBootInfo(const GuestRam& ram, const KernelImage& kernel, const BootFile& kernelFile,
                        const BootExtras& extras, kj::ArrayPtr<const RamRange> reserved,
                        uint64_t rsdp);

// Throws TRP-boot-010 or -011 for a command line the kernel cannot be given.
void checkCommandLine(const KernelImage& kernel, kj::StringPtr text);

// The descriptors at BOOT_GDT_ADDRESS, by selector: unused, unused, code, data, task state.
constexpr uint16_t BOOT_CODE_SELECTOR = 0x10;  // __BOOT_CS of the 64-bit boot protocol
constexpr uint16_t BOOT_DATA_SELECTOR = 0x18;  // __BOOT_DS
constexpr uint16_t BOOT_TASK_SELECTOR = 0x20;
constexpr uint16_t BOOT_GDT_LIMIT = 5 * 8 - 1;

}  // namespace troupe::broker
