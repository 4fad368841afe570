#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "broker/ram_layout.h"

namespace troupe::broker {

// A piece of a file or device of the host's, seen by the guest at `guestAddress`.
struct HostRegion {
  uint64_t guestAddress;
  uint64_t size;
  uint64_t fileOffset;
  int file;
};

// Throws TRP-cfg-106 unless the regions are at most so many, of whole pages, and meet neither each
// other, nor `ram`, nor the hole below 4 GiB, nor RAM_LIMIT.
void checkHostRegions(kj::ArrayPtr<const HostRegion> regions, kj::ArrayPtr<const RamRegion> ram);

// Memory that is the host's: the guest reads and writes it, and so may others. It is no RAM:
// nothing is loaded there, no device reaches it, and it stays as it is when the guest starts anew.
//
// This process maps it for KVM alone and never looks there itself: the file may become shorter at
// any time, and a look would end the process then. KVM says EFAULT.
class HostMemory {
 public:
  // Throws TRP-host-103 when the kernel refuses to map one of them. The files may be closed
  // afterwards. `regions` have passed checkHostRegions().
  explicit HostMemory(kj::Array<HostRegion> regions);
  ~HostMemory() noexcept(false);
  KJ_DISALLOW_COPY(HostMemory);

  kj::ArrayPtr<const HostRegion> regions() const { return regionList; }

  // Where region `index` is mapped here: only to be told to KVM.
  void* mapping(size_t index) const { return mappings[index]; }

  // Whether the guest sees it at this address.
  bool holds(uint64_t guestAddress) const;

  // Their addresses.
  kj::Array<RamRange> ranges() const;

  // The first address above all of them; 0 when there is none.
  uint64_t end() const;

 private:
  kj::Array<HostRegion> regionList;
  kj::Array<void*> mappings;
};

}  // namespace troupe::broker
