#include "broker/host_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "broker/memory_map.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

constexpr uint64_t PAGE_BYTES = 4096;

// Neither of them wraps.
bool overlap(uint64_t one, uint64_t oneSize, uint64_t other, uint64_t otherSize) {
  return one < other + otherSize && other < one + oneSize;
}

// Why this region cannot be where it is; none when it can.
kj::Maybe<kj::StringPtr> faultOf(const HostRegion& region) {
  if (region.size == 0) return "is empty"_kj;
  if ((region.guestAddress | region.size | region.fileOffset) % PAGE_BYTES != 0) {
    return "is not made of whole pages of 4096 bytes"_kj;
  }
  if (region.guestAddress > RAM_LIMIT || region.size > RAM_LIMIT - region.guestAddress) {
    return "reaches beyond 1 TiB"_kj;
  }
  if (region.fileOffset > uint64_t(INT64_MAX) - region.size) {
    return "lies beyond the end of any file"_kj;
  }
  if (overlap(region.guestAddress, region.size, LOW_RAM_END, HIGH_RAM_START - LOW_RAM_END)) {
    return "meets the addresses of devices, 3 GiB to 4 GiB"_kj;
  }
  return nullptr;
}

void* map(const HostRegion& region) {
  auto refused = [&](kj::StringPtr step) {
    int error = errno;
    refuse("TRP-host-103: the kernel refuses memory of the host's (", step, " of ", region.size,
           " bytes from ", region.fileOffset, " on, for the guest's 0x",
           kj::hex(region.guestAddress), "): ", strerror(error));
  };
  // What a file on huge pages needs is set aside now, not when the guest comes to it.
  void* pointer = mmap(nullptr, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, region.file,
                       region.fileOffset);
  if (pointer == MAP_FAILED) refused("mmap");
  if (madvise(pointer, region.size, MADV_DONTDUMP) < 0) refused("madvise");
  return pointer;
}

}  // namespace

void checkHostRegions(kj::ArrayPtr<const HostRegion> regions, kj::ArrayPtr<const RamRegion> ram) {
  if (regions.size() > MOST_HOST_REGIONS) {
    refuse("TRP-cfg-106: the guest is to have memory of the host's in ", regions.size(),
           " regions; it can have ", MOST_HOST_REGIONS);
  }
  for (size_t i = 0; i < regions.size(); ++i) {
    auto& region = regions[i];
    auto wrong = [&](kj::StringPtr why) {
      refuse("TRP-cfg-106: the region of the host's memory at 0x", kj::hex(region.guestAddress),
             ", ", region.size, " bytes, ", why);
    };
    KJ_IF_MAYBE (fault, faultOf(region)) wrong(*fault);
    for (auto& piece : ram) {
      if (overlap(region.guestAddress, region.size, piece.guestAddress, piece.size)) {
        wrong("meets the guest's own RAM");
      }
    }
    for (auto& earlier : regions.slice(0, i)) {
      if (overlap(region.guestAddress, region.size, earlier.guestAddress, earlier.size)) {
        wrong("meets another such region");
      }
    }
  }
}

HostMemory::HostMemory(kj::Array<HostRegion> regions)
    : regionList(kj::mv(regions)), mappings(KJ_MAP(region, regionList) { return map(region); }) {}

HostMemory::~HostMemory() noexcept(false) {
  for (size_t i = 0; i < mappings.size(); ++i)
    munmap(mappings[i], regionList[i].size);
}

bool HostMemory::holds(uint64_t guestAddress) const {
  for (auto& region : regionList) {
    if (guestAddress >= region.guestAddress && guestAddress - region.guestAddress < region.size) {
      return true;
    }
  }
  return false;
}

kj::Array<RamRange> HostMemory::ranges() const {
  return KJ_MAP(region, regionList) {
    return RamRange{region.guestAddress, region.size};
  };
}

uint64_t HostMemory::end() const {
  uint64_t last = 0;
  for (auto& region : regionList)
    last = kj::max(last, region.guestAddress + region.size);
  return last;
}

}  // namespace troupe::broker
