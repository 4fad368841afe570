#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "broker/ram_layout.h"

namespace troupe::broker {

// Guest RAM: a memfd sealed against any change of its size and of its seals, and this process's one
// mapping of each region. Pages come to life when they are first touched. Left out of core dumps.
//
// Once the guest runs it writes here at any time. What loads a guest (boot_*, acpi_*) uses the
// mapping; of the parts that serve a running guest only RamDeputy does, which stores and never
// reads.
class GuestRam {
 public:
  // `regions`: all of `file`, which is the memfd, borrowed for good; the first begins at 0. Throws
  // TRP-host-102 when the kernel refuses to map it.
  GuestRam(kj::Array<RamRegion> regions, int file);
  // The same with the regions of ramRegions().
  GuestRam(uint64_t bytes, int file) : GuestRam(ramRegions(bytes), file) {}
  ~GuestRam() noexcept(false);
  KJ_DISALLOW_COPY(GuestRam);

  uint64_t size() const { return bytes; }
  kj::ArrayPtr<const RamRegion> regions() const { return regionList; }

  // Where region `index` is mapped here.
  kj::byte* hostPointer(size_t index) const { return mappings[index]; }

  // The bytes of [guestAddress, guestAddress + size); none unless one region holds them all.
  kj::Maybe<kj::ArrayPtr<kj::byte>> slice(uint64_t guestAddress, uint64_t size) const;

  // Gives whole pages inside one region back to the host: whoever looks finds zeroes there, the
  // guest included, and they take no memory until they are written again. Returns `size`, or 0 when
  // the kernel refuses.
  uint64_t giveBack(uint64_t guestAddress, uint64_t size) const;

  // Gives the pages of up to `most` bytes from `offset` of the file on back to the host: they read
  // as zero until they are touched again. Returns how far it came, size() at last. Throws
  // TRP-host-102.
  uint64_t clear(uint64_t offset, uint64_t most);

  // The end of the region that starts at 0.
  uint64_t lowEnd() const { return regionList[0].size; }

 private:
  kj::Array<RamRegion> regionList;
  uint64_t bytes;
  int file;
  kj::Array<kj::byte*> mappings;
};

}  // namespace troupe::broker
