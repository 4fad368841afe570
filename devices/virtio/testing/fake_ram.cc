#include "devices/virtio/testing/fake_ram.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace troupe::virtio::testing {

kj::AutoCloseFd makeMemfd(uint64_t size, int seals) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("fake-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  kj::AutoCloseFd result(fd);
  KJ_SYSCALL(ftruncate(fd, size));
  KJ_SYSCALL(fcntl(fd, F_ADD_SEALS, seals));
  return result;
}

FakeRam::FakeRam(std::initializer_list<Region> regionsParam)
    : regions(kj::heapArray<Region>(regionsParam)), fileSize(0) {
  for (const Region& region : regions)
    fileSize += region.size;
  file = sandbox::makeSharedMemory("fake-ram", fileSize);
  void* address = mmap(nullptr, fileSize, PROT_READ | PROT_WRITE, MAP_SHARED, file.writable, 0);
  if (address == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(fake RAM)", errno);
  mapping = static_cast<kj::byte*>(address);
  // A big RAM stays sparse: only where rings and buffers are allocated does poison matter.
  memset(mapping, POISON, kj::min(fileSize, 16 * MIB));
}

FakeRam::~FakeRam() noexcept(false) {
  KJ_SYSCALL(munmap(mapping, fileSize));
}

GuestMemory FakeRam::memory() const {
  auto view = kj::heapArrayBuilder<MemoryRegion>(regions.size());
  uint64_t offset = 0;
  for (const Region& region : regions) {
    view.add(MemoryRegion{region.guestAddress, region.size, mapping + offset});
    offset += region.size;
  }
  return GuestMemory(view.finish());
}

void FakeRam::describe(GuestRam::Builder ram) const {
  auto list = ram.initRegions(regions.size());
  uint64_t offset = 0;
  for (size_t i = 0; i < regions.size(); i++) {
    list[i].setGuestAddress(regions[i].guestAddress);
    list[i].setFileOffset(offset);
    list[i].setSize(regions[i].size);
    offset += regions[i].size;
  }
}

kj::ArrayPtr<kj::byte> FakeRam::bytes(uint64_t guestAddress, uint64_t size) const {
  uint64_t offset = 0;
  for (const Region& region : regions) {
    uint64_t inside = guestAddress - region.guestAddress;
    if (inside < region.size && size <= region.size - inside) {
      return kj::arrayPtr(mapping + offset + inside, size);
    }
    offset += region.size;
  }
  KJ_FAIL_REQUIRE("the test has no RAM there", guestAddress, size);
}

uint64_t FakeRam::allocate(uint64_t size, uint64_t alignment) {
  uint64_t start = (nextFree + alignment - 1) & ~(alignment - 1);
  KJ_REQUIRE(start + size <= regions[0].size, "the test's RAM is too small", size);
  nextFree = start + size;
  return regions[0].guestAddress + start;
}

}  // namespace troupe::virtio::testing
