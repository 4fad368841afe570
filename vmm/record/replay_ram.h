#pragma once

#include <capnp/list.h>
#include <kj/array.h>
#include <kj/io.h>

#include "protos/recording.capnp.h"
#include "sandbox/shared_memory.h"

namespace troupe {

// Guest RAM of a replay: as large as the recorded guest's and empty but for what is put there. All
// addresses come from a recording, so each is checked; kj exceptions tell of those that are not in
// RAM.
class ReplayRam {
 public:
  explicit ReplayRam(capnp::List<RamRegion>::Reader regions);
  ~ReplayRam() noexcept(false);
  KJ_DISALLOW_COPY(ReplayRam);

  int fd(bool readOnly) const { return readOnly ? file.readOnly : file.writable; }
  void describe(GuestRam::Builder ram) const;

  kj::ArrayPtr<kj::byte> bytes(uint64_t guestAddress, uint64_t size) const;

 private:
  struct Region {
    uint64_t guestAddress;
    uint64_t fileOffset;
    uint64_t size;
  };
  kj::Array<Region> regions;
  uint64_t fileSize = 0;
  sandbox::SharedMemory file;
  kj::byte* mapping = nullptr;
};

// The driver's side of one queue, which puts recorded chains into it.
class ReplayDriver {
 public:
  // Empties the ring's memory.
  ReplayDriver(const ReplayRam& ram, QueueLayout::Reader layout);

  // Puts descriptors and buffers where they were and makes the chain available.
  void make(TakenChain::Reader chain);

 private:
  void putDescriptors(TakenChain::Reader chain);
  void putBuffers(TakenChain::Reader chain);
  void advance(uint16_t by);

  const ReplayRam& ram;
  const uint16_t size;
  const uint64_t descriptorTable;
  const uint64_t availableRing;
  uint16_t next = 0;
};

}  // namespace troupe
