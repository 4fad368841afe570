#include "broker/boot_image.h"

#include <elf.h>

#include <cstring>

#include "broker/boot_layout.h"
#include "broker/boot_zircon.h"
#include "broker/refusal.h"
#include "tests/fuzz/planted.h"

namespace troupe::broker {
namespace {

constexpr uint64_t BZIMAGE_MAGIC_OFFSET = 0x202;

template <size_t size>
bool begins(const BootFile& file, uint64_t offset, const char (&magic)[size]) {
  constexpr size_t length = size - 1;
  if (file.size() < offset + length) return false;
  kj::byte found[length];
  file.read(offset, kj::arrayPtr(found, length));
  return memcmp(found, magic, length) == 0;
}

kj::String firstBytes(const BootFile& file) {
  kj::byte found[4] = {};
  size_t count = kj::min(file.size(), sizeof(found));
  file.read(0, kj::arrayPtr(found, count));
  return kj::strArray(
      KJ_MAP(byte, kj::arrayPtr(found, count)) {
        return kj::str(byte < 0x10 ? "0" : "", kj::hex(byte));
      },
      " ");
}

}  // namespace

kj::ArrayPtr<kj::byte> kernelPlace(const GuestRam& ram, uint64_t start, uint64_t size) {
  if (start < KERNEL_FLOOR) {
    refuse("TRP-boot-008: the kernel wants to lie at 0x", kj::hex(start),
           "; the lowest place for a kernel is 0x", kj::hex(KERNEL_FLOOR));
  }
  KJ_IF_MAYBE (place, ram.slice(start, size)) {
    if (start < ram.lowEnd()) return *place;
  }
  KJ_IF_MAYBE (place, ram.slice(start, 1)) {
    if (fuzz::isPlanted(fuzz::Bug::KERNEL_PAST_RAM)) return kj::arrayPtr(place->begin(), size);
  }
  refuse("TRP-boot-007: the kernel needs ", size, " bytes at 0x", kj::hex(start),
         ", which is not all in the guest's ", ram.size() / MIB, " MiB of memory");
}

KernelImage loadKernel(const BootFile& file, const GuestRam& ram, KernelKind kind) {
  bool zircon = isZircon(file);
  if (zircon && kind == KernelKind::LINUX) {
    refuse("TRP-boot-017: the ", file.what(),
           " is a Zircon boot image, and a Linux kernel is said");
  }
  // One that is none tells so itself.
  if (zircon || kind == KernelKind::ZIRCON) return loadZircon(file, ram);
  if (begins(file, 0, ELFMAG)) return loadElf(file, ram);
  if (begins(file, BZIMAGE_MAGIC_OFFSET, "HdrS")) return loadBzImage(file, ram);
  refuse("TRP-boot-004: the ", file.what(), " is no kernel: it begins with ", firstBytes(file),
         " and is neither a bzImage nor an ELF file nor a Zircon boot image");
}

}  // namespace troupe::broker
