#include "broker/ram_layout.h"

#include <kj/vector.h>

#include <algorithm>

#include "broker/memory_map.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

constexpr uint64_t PAGE_BYTES = 4096;

RamRegion cut(kj::ArrayPtr<const RamRegion> regions, const RamRange& range) {
  for (const RamRegion& region : regions) {
    if (range.guestAddress < region.guestAddress) continue;
    uint64_t offset = range.guestAddress - region.guestAddress;
    if (offset >= region.size || range.size > region.size - offset) continue;
    return RamRegion{range.guestAddress, region.fileOffset + offset, range.size};
  }
  kj::Vector<kj::String> places;
  for (const RamRegion& region : regions) {
    places.add(kj::str("0x", kj::hex(region.guestAddress), " to 0x",
                       kj::hex(region.guestAddress + region.size - 1)));
  }
  refuse("TRP-cfg-104: a range of guest memory, ", range.size, " bytes at 0x",
         kj::hex(range.guestAddress), ", is not inside one piece of the guest's RAM; that is at ",
         kj::strArray(places, " and "));
}

}  // namespace

kj::Array<RamRegion> ramRegions(uint64_t bytes) {
  kj::Vector<RamRegion> regions;
  uint64_t low = std::min(bytes, LOW_RAM_END);
  regions.add(RamRegion{0, 0, low});
  if (bytes > low) regions.add(RamRegion{HIGH_RAM_START, low, bytes - low});
  return regions.releaseAsArray();
}

kj::Array<RamRegion> cutRanges(kj::ArrayPtr<const RamRegion> regions,
                               kj::ArrayPtr<const RamRange> ranges) {
  if (ranges.size() == 0) refuse("TRP-cfg-104: a device gets ranges of guest memory, but none");
  auto pieces = kj::heapArrayBuilder<RamRegion>(ranges.size());
  uint64_t end = 0;
  for (const RamRange& range : ranges) {
    if (range.size == 0 || range.guestAddress % PAGE_BYTES != 0 || range.size % PAGE_BYTES != 0) {
      refuse("TRP-cfg-104: a range of guest memory, ", range.size, " bytes at 0x",
             kj::hex(range.guestAddress), ", is not made of whole pages of 4096 bytes");
    }
    if (range.guestAddress < end) {
      refuse("TRP-cfg-104: the range of guest memory at 0x", kj::hex(range.guestAddress),
             " begins before the end of the one before it, 0x", kj::hex(end));
    }
    pieces.add(cut(regions, range));
    end = range.guestAddress + range.size;  // inside RAM, so it does not wrap
  }
  return pieces.finish();
}

}  // namespace troupe::broker
