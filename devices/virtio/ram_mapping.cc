#include "devices/virtio/ram_mapping.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "tests/fuzz/coverage.h"

namespace troupe::virtio {
namespace {

constexpr uint64_t PAGE_BYTES = 4096;
constexpr int NEEDED_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr size_t MAX_REGIONS = 64;  // a PC has two; memory hot-plug adds one per slot

uint64_t sealedSize(int file) {
  int seals = fcntl(file, F_GET_SEALS);
  KJ_REQUIRE(seals >= 0, "guest RAM is not a memfd", errno);
  KJ_REQUIRE((seals & NEEDED_SEALS) == NEEDED_SEALS, "guest RAM is not sealed", seals);
  off_t size;
  // Unlike fstat() it cannot name a path, so a filter that allows it gives away less.
  KJ_SYSCALL(size = lseek(file, 0, SEEK_END));
  return size;
}

bool isWholePages(uint64_t value) {
  return value % PAGE_BYTES == 0;
}

kj::Array<Mapping> mapAll(int file, RamAccess access, capnp::List<RamRegion>::Reader regions) {
  KJ_REQUIRE(regions.size() > 0 && regions.size() <= MAX_REGIONS, "guest RAM has too many regions",
             regions.size());
  uint64_t fileSize = sealedSize(file);
  auto mappings = kj::heapArrayBuilder<Mapping>(regions.size());
  for (auto region : regions) {
    uint64_t offset = region.getFileOffset();
    uint64_t size = region.getSize();
    KJ_REQUIRE(isWholePages(region.getGuestAddress()) && isWholePages(offset) &&
                   isWholePages(size) && size > 0,
               "a RAM region is not made of whole pages", region);
    KJ_REQUIRE(offset <= fileSize && size <= fileSize - offset,
               "a RAM region passes the file's end", region, fileSize);
    mappings.add(file, access, offset, size);
  }
  return mappings.finish();
}

// Order and overlap in the guest's addresses are GuestMemory's to check.
GuestMemory viewOf(kj::ArrayPtr<const Mapping> mappings, capnp::List<RamRegion>::Reader regions) {
  auto view = kj::heapArrayBuilder<MemoryRegion>(mappings.size());
  for (size_t i = 0; i < mappings.size(); i++) {
    view.add(MemoryRegion{regions[i].getGuestAddress(), regions[i].getSize(), mappings[i].begin()});
    fuzz::coverage::mapped(regions[i].getGuestAddress(), regions[i].getSize(), mappings[i].begin());
  }
  return GuestMemory(view.finish());
}

}  // namespace

Mapping::Mapping(int fd, RamAccess access, uint64_t offset, uint64_t size) : size(size) {
  int protection = access == RamAccess::WRITABLE ? PROT_READ | PROT_WRITE : PROT_READ;
  void* result = mmap(nullptr, size, protection, MAP_SHARED, fd, offset);
  if (result == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(guest RAM)", errno, offset, size);
  address = static_cast<kj::byte*>(result);
  // A core of a device shows the device's bug, not the guest's secrets.
  KJ_SYSCALL(madvise(result, size, MADV_DONTDUMP));
}

Mapping::~Mapping() {
  fuzz::coverage::unmapping(address);
  if (address != nullptr) munmap(address, size);
}

RamMapping::RamMapping() : view(nullptr) {}

RamMapping::RamMapping(int file, RamAccess access, capnp::List<RamRegion>::Reader regions)
    : mappings(mapAll(file, access, regions)), view(viewOf(mappings, regions)) {}

}  // namespace troupe::virtio
