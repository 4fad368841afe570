#pragma once

#include <kj/array.h>
#include <kj/io.h>

#include <cstdint>
#include <initializer_list>

#include "devices/virtio/guest_memory.h"
#include "protos/device.capnp.h"
#include "sandbox/shared_memory.h"

namespace troupe::virtio::testing {

// Guest RAM as the broker makes it: one sealed memfd, mapped here too so that a test can play the
// guest. Filled with POISON, so that a test sees what a device wrote.
class FakeRam {
 public:
  struct Region {
    uint64_t guestAddress;
    uint64_t size;
  };
  static constexpr kj::byte POISON = 0xa5;
  static constexpr uint64_t MIB = 1 << 20;

  // One region from address 0 on.
  explicit FakeRam(uint64_t size = 4 * MIB) : FakeRam({Region{0, size}}) {}
  // Regions lie in the file in the order given. All numbers are multiples of 4096.
  explicit FakeRam(std::initializer_list<Region> regions);
  ~FakeRam() noexcept(false);
  KJ_DISALLOW_COPY(FakeRam);

  // The device's view through this process's own mapping, for tests below the actor.
  GuestMemory memory() const;

  int fd() const { return file.writable; }
  int readOnlyFd() const { return file.readOnly; }
  // Everything of `ram` but its file.
  void describe(GuestRam::Builder ram) const;

  // The guest's own access; throws where there is no RAM.
  kj::ArrayPtr<kj::byte> bytes(uint64_t guestAddress, uint64_t size) const;

  // A guest address nobody got before, from the first region. Alignment is a power of two.
  uint64_t allocate(uint64_t size, uint64_t alignment = 16);

 private:
  kj::Array<Region> regions;
  uint64_t fileSize;
  sandbox::SharedMemory file;
  kj::byte* mapping;
  uint64_t nextFree = 0;
};

// A memfd of `size` bytes with `seals` (F_SEAL_…): the broker's are SHRINK | GROW | SEAL.
kj::AutoCloseFd makeMemfd(uint64_t size, int seals);

}  // namespace troupe::virtio::testing
