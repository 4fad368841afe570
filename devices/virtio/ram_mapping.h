#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>

#include <cstdint>

#include "devices/virtio/guest_memory.h"
#include "protos/device.capnp.h"

namespace troupe::virtio {

// One shared, writable mapping of a part of a file: lazily filled, and left out of core dumps. The
// fd may be closed afterwards. `offset` and `size` are multiples of the page size.
class Mapping {
 public:
  Mapping(int fd, uint64_t offset, uint64_t size);
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

// Guest RAM, mapped: one mapping per region, none copied or touched.
class RamMapping {
 public:
  // Throws unless `file` is a memfd sealed against growing, shrinking and further seals (so that no
  // access can ever fault), and the regions are sorted, whole pages, and inside the file.
  RamMapping(int file, capnp::List<RamRegion>::Reader regions);
  KJ_DISALLOW_COPY(RamMapping);

  const GuestMemory& memory() const { return view; }

 private:
  kj::Array<Mapping> mappings;
  GuestMemory view;
};

}  // namespace troupe::virtio
