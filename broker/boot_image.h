#pragma once

#include <asm/bootparam.h>
#include <kj/common.h>

#include <cstdint>

#include "broker/boot_file.h"
#include "broker/guest_ram.h"
#include "protos/broker.capnp.h"

namespace troupe::broker {

enum class BootProtocol {
  LINUX64,  // 64-bit boot protocol (Documentation/x86/boot.rst): long mode, RSI = boot_params
  PVH,      // direct boot ABI of Xen (xen/include/public/arch-x86/hvm/start_info.h): 32-bit
  ZIRCON,   // long mode, RSI = the data container (boot_zircon.h)
};

// Items in a Zircon boot image: bytes of its file.
struct ZirconItems {
  uint64_t offset = 0;
  uint64_t size = 0;
};

// A kernel that lies in guest RAM, ready to be entered.
struct KernelImage {
  BootProtocol protocol;
  uint64_t entry;            // guest-physical
  uint64_t end;              // first address above everything the kernel claims at its start
  uint64_t initrdLast;       // highest address an initrd may use
  uint32_t commandLineMost;  // bytes, without the closing zero
  kj::Maybe<setup_header> linuxHeader;  // of a bzImage
  ZirconItems otherItems = {};          // with ZIRCON: what its file holds behind the kernel
};

// Puts the kernel in `file` into `ram`, read straight from the file. Told by their magic:
//
// - bzImage: Linux's 64-bit entry, which every x86-64 kernel since 3.8 has;
// - ELF, 64-bit, that says it is Linux or has no PVH note: Linux's 64-bit entry (a vmlinux);
// - any other ELF with a PVH note (XEN_ELFNOTE_PHYS32_ENTRY), 32- or 64-bit: PVH.
//
// - a Zircon boot image (boot_zircon.h).
//
// So a vmlinux that has both entries, as Debian's has, takes the same path as a bzImage.
// Throws a TRP-boot- error of its own for each way a file can be no kernel for this machine, or not
// the kind of kernel that was said.
KernelImage loadKernel(const BootFile& file, const GuestRam& ram,
                       KernelKind kind = KernelKind::ANY);

// The two kinds, for loadKernel().
KernelImage loadBzImage(const BootFile& file, const GuestRam& ram);
KernelImage loadElf(const BootFile& file, const GuestRam& ram);

// The part of RAM below the hole that [start, start + size) is, if it is one and lies where a
// kernel may. Throws TRP-boot-007 when RAM is too small and TRP-boot-008 when it lies too low.
kj::ArrayPtr<kj::byte> kernelPlace(const GuestRam& ram, uint64_t start, uint64_t size);

}  // namespace troupe::broker
