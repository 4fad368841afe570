#pragma once

#include <stdint.h>

// What the boot loader left, by the PVH boot ABI (Xen's hvm_start_info).
namespace payload {

struct RamRange {
  uint64_t start;
  uint64_t end;
};

struct StartInfo {
  char commandLine[1024];
  uint64_t rsdp;  // 0 when not given
  // Usable RAM in the loader's order.
  RamRange ram[16];
  unsigned ramCount;

  uint64_t ramBytes() const;
};

// Copies everything out of the loader's memory, which may be reused afterwards. False when
// `address` holds no start info.
bool readStartInfo(uint64_t address, StartInfo& info);

}  // namespace payload
