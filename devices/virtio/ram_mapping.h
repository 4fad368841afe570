#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>

#include <cstdint>

#include "devices/virtio/guest_memory.h"
#include "protos/device.capnp.h"

namespace troupe::virtio {

// Whether a device may write the guest's memory. One that may not was given an fd opened for
// reading alone, so it is the kernel that refuses: a store faults.
enum class RamAccess { READ_ONLY, WRITABLE };

// One shared mapping of a part of a file: lazily filled, and left out of core dumps. The fd may be
// closed afterwards. `offset` and `size` are multiples of the page size.
class Mapping {
 public:
  Mapping(int fd, RamAccess access, uint64_t offset, uint64_t size);
  ~Mapping();
  Mapping(Mapping&& other) noexcept : address(other.address), size(other.size) {
    other.address = nullptr;
  }
  KJ_DISALLOW_COPY(Mapping);

  kj::byte* begin() const { return address; }

 private:
  kj::byte* address;
  uint64_t size;
};

// Guest RAM, or the ranges of it that a device was granted, mapped: one mapping per region, none
// copied or touched.
class RamMapping {
 public:
  // Of a device that was granted none.
  RamMapping();
  // Throws unless `file` is a memfd sealed against growing, shrinking and further seals (so that no
  // access within a region can ever fault for want of a page), and the regions are sorted, whole
  // pages, and inside the file.
  RamMapping(int file, RamAccess access, capnp::List<RamRegion>::Reader regions);
  RamMapping(RamMapping&&) = default;
  KJ_DISALLOW_COPY(RamMapping);

  const GuestMemory& memory() const { return view; }

 private:
  kj::Array<Mapping> mappings;
  GuestMemory view;
};

}  // namespace troupe::virtio
