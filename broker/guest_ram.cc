#include "broker/guest_ram.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "broker/memory_map.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

constexpr int NEEDED_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

[[noreturn]] void memoryRefused(kj::StringPtr step, int error) {
  refuse("TRP-host-102: the kernel refuses guest memory (", step, "): ", strerror(error));
}

void requireSealed(int file, uint64_t bytes) {
  int seals;
  KJ_SYSCALL(seals = fcntl(file, F_GET_SEALS));
  KJ_REQUIRE((seals & NEEDED_SEALS) == NEEDED_SEALS, "guest RAM is not sealed", seals);
  off_t size;
  KJ_SYSCALL(size = lseek(file, 0, SEEK_END));
  KJ_REQUIRE(uint64_t(size) == bytes, "guest RAM has another size than was said", size, bytes);
}

kj::byte* mapRegion(int file, const RamRegion& region) {
  void* pointer = mmap(nullptr, region.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                       file, region.fileOffset);
  if (pointer == MAP_FAILED) memoryRefused("mmap", errno);
  if (madvise(pointer, region.size, MADV_DONTDUMP) < 0) memoryRefused("madvise", errno);
  return static_cast<kj::byte*>(pointer);
}

}  // namespace

GuestRam::GuestRam(kj::Array<RamRegion> regions, int file)
    : regionList(kj::mv(regions)), bytes(0), file(file) {
  for (auto& region : regionList)
    bytes += region.size;
  KJ_REQUIRE(regionList.size() > 0 && regionList[0].guestAddress == 0, "no memory at 0");
  requireSealed(file, bytes);
  mappings = KJ_MAP(region, regionList) {
    return mapRegion(file, region);
  };
}

GuestRam::~GuestRam() noexcept(false) {
  for (size_t i = 0; i < mappings.size(); ++i)
    munmap(mappings[i], regionList[i].size);
}

uint64_t GuestRam::clear(uint64_t offset, uint64_t most) {
  uint64_t size = kj::min(most, bytes - offset);
  // Out of all mappings, the guest's and those of devices among them.
  int result = fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
  if (result < 0 && errno == EINTR) return offset;
  if (result < 0) memoryRefused("fallocate", errno);
  return offset + size;
}

kj::Maybe<kj::ArrayPtr<kj::byte>> GuestRam::slice(uint64_t guestAddress, uint64_t size) const {
  if (size == 0) return nullptr;
  for (size_t i = 0; i < regionList.size(); ++i) {
    const RamRegion& region = regionList[i];
    if (guestAddress < region.guestAddress) continue;
    uint64_t offset = guestAddress - region.guestAddress;
    if (offset >= region.size || size > region.size - offset) continue;
    return kj::arrayPtr(mappings[i] + offset, size);
  }
  return nullptr;
}

// No seal is in the way: the file keeps its size. MADV_REMOVE does the same by a detour.
uint64_t GuestRam::giveBack(uint64_t guestAddress, uint64_t size) const {
  for (const RamRegion& region : regionList) {
    if (guestAddress < region.guestAddress) continue;
    uint64_t offset = guestAddress - region.guestAddress;
    if (offset >= region.size || size > region.size - offset) continue;
    int result = fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           region.fileOffset + offset, size);
    return result == 0 ? size : 0;
  }
  return 0;
}

}  // namespace troupe::broker
