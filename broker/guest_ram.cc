#include "broker/guest_ram.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "broker/memory_map.h"
#include "broker/refusal.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3; Debian 12's headers are older
#endif

namespace troupe::broker {
namespace {

[[noreturn]] void memoryRefused(kj::StringPtr step, int error) {
  refuse("TRP-host-102: the kernel refuses guest memory (", step, "): ", strerror(error));
}

void requireHostMemory(uint64_t bytes) {
  struct sysinfo info;
  KJ_SYSCALL(sysinfo(&info));
  uint64_t host = uint64_t(info.totalram) * info.mem_unit;
  if (bytes <= host) return;
  refuse("TRP-host-101: guest memory of ", bytes / MIB, " MiB is more than the host's ", host / MIB,
         " MiB; `grep MemTotal /proc/meminfo` shows what there is");
}

kj::AutoCloseFd makeFile(uint64_t bytes) {
  // Nothing in guest RAM is ever executed by a host process. Older kernels do not know the flag.
  int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) memoryRefused("memfd_create", errno);
  kj::AutoCloseFd file(fd);
  if (ftruncate(file, bytes) < 0) memoryRefused("ftruncate", errno);
  if (fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
    memoryRefused("F_ADD_SEALS", errno);
  }
  return file;
}

kj::byte* mapRegion(int file, const RamRegion& region) {
  void* pointer = mmap(nullptr, region.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                       file, region.fileOffset);
  if (pointer == MAP_FAILED) memoryRefused("mmap", errno);
  if (madvise(pointer, region.size, MADV_DONTDUMP) < 0) memoryRefused("madvise", errno);
  return static_cast<kj::byte*>(pointer);
}

}  // namespace

kj::Array<RamRegion> ramRegions(uint64_t bytes) {
  kj::Vector<RamRegion> regions;
  uint64_t low = std::min(bytes, LOW_RAM_END);
  regions.add(RamRegion{0, 0, low});
  if (bytes > low) regions.add(RamRegion{HIGH_RAM_START, low, bytes - low});
  return regions.releaseAsArray();
}

GuestRam::GuestRam(uint64_t bytes, FdTable& fds) : bytes(bytes) {
  KJ_REQUIRE(bytes > 0 && bytes % (2 * MIB) == 0, "guest memory comes in pieces of 2 MiB", bytes);
  requireHostMemory(bytes);
  regionList = ramRegions(bytes);
  file = fds.place("ram", 0, makeFile(bytes));
  mappings = KJ_MAP(region, regionList) {
    return mapRegion(file, region);
  };
}

GuestRam::~GuestRam() noexcept(false) {
  for (size_t i = 0; i < mappings.size(); ++i)
    munmap(mappings[i], regionList[i].size);
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

}  // namespace troupe::broker
