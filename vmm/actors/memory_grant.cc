#include "vmm/actors/memory_grant.h"

namespace troupe {

namespace {

using sandbox::ProfileMemory;

kj::ArrayPtr<const sandbox::ProfileMemoryRange> rangesOf(const ProfileMemory& memory) {
  return kj::arrayPtr(memory.ranges, memory.rangeCount);
}

kj::Array<broker::RamRegion> grantedRegions(const ProfileMemory& memory,
                                            kj::ArrayPtr<const broker::RamRegion> all) {
  switch (memory.access) {
    case ProfileMemory::NONE:
      return nullptr;
    case ProfileMemory::RANGES: {
      auto ranges = KJ_MAP(range, rangesOf(memory)) {
        return broker::RamRange{range.address, range.size};
      };
      return broker::cutRanges(all, ranges);
    }
    case ProfileMemory::READ_ONLY:
    case ProfileMemory::ALL:
      return kj::heapArray(all);
  }
  KJ_UNREACHABLE;
}

}  // namespace

void writeGrant(const ProfileMemory& memory, MemoryGrant::Builder grant) {
  switch (memory.access) {
    case ProfileMemory::NONE:
      return grant.setNone();
    case ProfileMemory::READ_ONLY:
      return grant.setReadOnly();
    case ProfileMemory::RANGES: {
      auto ranges = rangesOf(memory);
      auto list = grant.initRanges(ranges.size());
      for (kj::uint i = 0; i < ranges.size(); i++) {
        list[i].setGuestAddress(ranges[i].address);
        list[i].setSize(ranges[i].size);
      }
      return;
    }
    case ProfileMemory::ALL:
      return grant.setAll();
  }
}

kj::Array<sandbox::FileRange> mappableRanges(const ProfileMemory& memory,
                                             kj::ArrayPtr<const broker::RamRegion> ram) {
  return KJ_MAP(region, grantedRegions(memory, ram)) {
    return sandbox::FileRange{region.fileOffset, region.size};
  };
}

}  // namespace troupe
