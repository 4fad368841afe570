#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace troupe::virtio {

// One piece of guest RAM mapped into this process: `size` bytes at `hostPointer`, which the guest
// sees at `guestAddress`. Borrowed: whoever made the mapping keeps it alive.
struct MemoryRegion {
  uint64_t guestAddress;
  uint64_t size;
  kj::byte* hostPointer;
};

// Guest RAM as one device process sees it: a sorted list of regions that do not overlap.
//
// The guest keeps writing this memory. Everything read from it is copied out once, through
// guest_word.h or copyOut(), and checked on the copy. A range that is not wholly inside one region
// is refused, whatever its length (no address arithmetic here can overflow). Immutable, so safe on
// any thread.
class GuestMemory {
 public:
  // Throws unless `regions` are sorted, not empty and do not overlap or wrap.
  explicit GuestMemory(kj::Array<MemoryRegion> regions);
  KJ_DISALLOW_COPY(GuestMemory);
  GuestMemory(GuestMemory&&) = default;

  // The bytes of [guestAddress, guestAddress + size); none unless one region holds them all.
  // A size of 0 gives none. The result is for system calls and for the copy functions below.
  kj::Maybe<kj::ArrayPtr<kj::byte>> slice(uint64_t guestAddress, uint64_t size) const {
    // A machine has one or two regions: the hole below 4 GiB parts them.
    for (const MemoryRegion& region : regions) {
      uint64_t offset = guestAddress - region.guestAddress;  // huge when below the region
      if (offset < region.size) {
        if (size == 0 || size > region.size - offset) return nullptr;
        return kj::arrayPtr(region.hostPointer + offset, size);
      }
    }
    return nullptr;
  }

  // Where the guest sees the byte at `hostPointer`; none when it is no byte of these regions.
  kj::Maybe<uint64_t> guestAddress(const void* hostPointer) const {
    for (const MemoryRegion& region : regions) {
      uint64_t offset = static_cast<const kj::byte*>(hostPointer) - region.hostPointer;
      if (offset < region.size) return region.guestAddress + offset;
    }
    return nullptr;
  }

 private:
  kj::Array<MemoryRegion> regions;
};

// Copies between guest memory and private memory of the same size, word by word of guest_word.h:
// each guest byte is read (written) exactly once. For headers and characters; bulk data moves by
// system calls on the pieces of a Chain.
void copyOut(kj::ArrayPtr<kj::byte> copy, const kj::byte* guest);
void copyIn(kj::byte* guest, kj::ArrayPtr<const kj::byte> bytes);

}  // namespace troupe::virtio
