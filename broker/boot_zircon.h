#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "broker/boot_file.h"
#include "broker/boot_image.h"
#include "broker/boot_info.h"
#include "broker/memory_map.h"

// Zircon boot images (ZBI): containers of items, each a header of 32 bytes and a payload that ends
// at a multiple of 8. The first item of a kernel's container is the kernel itself.
namespace troupe::broker {

constexpr uint64_t ZIRCON_KERNEL_ADDRESS = 1 * MIB;  // where the kernel was linked to lie
constexpr uint64_t ZIRCON_DATA_ADDRESS = 64 * MIB;   // of the container it is handed

// Whether the file begins as a Zircon boot image does.
bool isZircon(const BootFile& file);

// Puts container header and kernel item at ZIRCON_KERNEL_ADDRESS. Throws TRP-boot-003 for a length
// that passes the file's or the container's end, TRP-boot-007 when the kernel and what it reserves
// behind it are more than RAM, TRP-boot-014 for a wrong magic, TRP-boot-015 for a first item that
// is no kernel for this machine, TRP-boot-016 for an entry outside of it or a kernel that reaches
// ZIRCON_DATA_ADDRESS.
KernelImage loadZircon(const BootFile& file, const GuestRam& ram);

// Makes the container at ZIRCON_DATA_ADDRESS: the other items of the kernel's file, those of
// the initrd, and command line, `map`, ACPI's root and the serial port as items behind them.
// Throws as loadZircon() does, and TRP-boot-009 when it does not fit.
BootState writeZirconData(const GuestRam& ram, const KernelImage& kernel,
                          const BootFile& kernelFile, const BootExtras& extras,
                          kj::ArrayPtr<const MemoryMapEntry> map, uint64_t rsdp);

}  // namespace troupe::broker
