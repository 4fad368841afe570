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

// Why this region cannot be where it is; none when it can. `end`: of the one before.
kj::Maybe<kj::StringPtr> faultOf(const RamRange& range, uint64_t end) {
  if (range.size == 0) return "is empty"_kj;
  if (range.guestAddress % PAGE_BYTES != 0 || range.size % PAGE_BYTES != 0) {
    return "is not made of whole pages of 4096 bytes"_kj;
  }
  if (range.guestAddress < end) return "begins before the end of the one before it"_kj;
  if (range.guestAddress > RAM_LIMIT || range.size > RAM_LIMIT - range.guestAddress) {
    return "reaches beyond 1 TiB"_kj;
  }
  bool isBelow = range.guestAddress + range.size <= LOW_RAM_END;
  if (!isBelow && range.guestAddress < HIGH_RAM_START) {
    return "meets the addresses of devices, 3 GiB to 4 GiB"_kj;
  }
  return nullptr;
}

}  // namespace

kj::Array<RamRegion> placedRegions(kj::ArrayPtr<const RamRange> ranges) {
  bool isFirstSound = ranges.size() > 0 && ranges.size() <= MOST_REGIONS &&
                      ranges[0].guestAddress == 0 && ranges[0].size >= LEAST_FIRST_REGION;
  if (!isFirstSound) {
    refuse("TRP-cfg-105: guest memory is placed in ", ranges.size(), " regions; it has 1 to ",
           MOST_REGIONS, ", of which the first begins at 0 and has 2 MiB at least");
  }
  auto regions = kj::heapArrayBuilder<RamRegion>(ranges.size());
  uint64_t end = 0, offset = 0;
  for (auto& range : ranges) {
    KJ_IF_MAYBE (fault, faultOf(range, end)) {
      refuse("TRP-cfg-105: the region of guest memory at 0x", kj::hex(range.guestAddress), ", ",
             range.size, " bytes, ", *fault);
    }
    regions.add(RamRegion{range.guestAddress, offset, range.size});
    offset += range.size;
    end = range.guestAddress + range.size;
  }
  return regions.finish();
}

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
