#pragma once

#include <capnp/list.h>
#include <kj/array.h>

#include "protos/recording.capnp.h"

namespace troupe {

// Where a replay has guest RAM, borrowed: a file of so many bytes, and where it is mapped.
struct RamPlace {
  kj::byte* mapping;
  uint64_t bytes;
  int writer;
  int reader;  // opened for reading alone
};

// Guest RAM of a replay: as large as the recorded guest's and empty but for what is put there. All
// addresses come from a recording, so each is checked; kj exceptions tell of those that are not in
// RAM.
class ReplayRam {
 public:
  static constexpr uint64_t MOST_BYTES = uint64_t(1) << 42;

  // How large its file has to be. Throws for regions that no guest can have.
  static uint64_t fileBytes(capnp::List<RamRegion>::Reader regions);

  ReplayRam(capnp::List<RamRegion>::Reader regions, const RamPlace& place);
  // In memory of its own.
  explicit ReplayRam(capnp::List<RamRegion>::Reader regions);
  ~ReplayRam() noexcept(false);
  KJ_DISALLOW_COPY(ReplayRam);

  void describe(GuestRam::Builder ram) const;

  kj::ArrayPtr<kj::byte> bytes(uint64_t guestAddress, uint64_t size) const;

 private:
  struct Region {
    uint64_t guestAddress;
    uint64_t fileOffset;
    uint64_t size;
  };
  static kj::Array<Region> read(capnp::List<RamRegion>::Reader regions);

  kj::Array<Region> regions;
  kj::byte* mapping;
  uint64_t bytesMapped;
  bool isOwn = false;
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
