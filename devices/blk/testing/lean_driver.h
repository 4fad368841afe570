#pragma once

#include <cstdint>
#include <cstring>

#include "devices/blk/blk_wire.h"
#include "devices/virtio/guest_word.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/virtqueue.h"
#include "devices/virtio/wire.h"

namespace troupe::blk::testing {

// Blocks of a disk in an order of their own, the same in each run.
class RandomBlocks {
 public:
  RandomBlocks(uint64_t diskBytes, uint32_t blockBytes)
      : count(diskBytes / blockBytes), bytes(blockBytes) {}
  // Where the next one begins.
  uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % count * bytes;
  }

 private:
  const uint64_t count;
  const uint32_t bytes;
  uint64_t state = 88172645463325252;
};

// A driver that costs next to nothing: slot i of its ring always holds chain i (header, one buffer,
// status), and it only moves indices. It takes no interrupts.
class LeanDriver {
 public:
  struct Load {
    uint32_t depth = 1;  // requests in flight, at most 85
    uint32_t bytes = 4096;
    bool write = false;
  };
  static constexpr uint16_t RING = 256;

  LeanDriver(virtio::testing::FakeRam& ram, const Load& load);

  virtio::RingLayout where() const { return layout; }

  void submit(uint32_t chain, uint64_t offset) {
    virtio::BlkRequestHeader header{type, 0, offset / virtio::BLK_SECTOR_BYTES};
    memcpy(ram.bytes(headers + chain * 16, 16).begin(), &header, 16);
    virtio::storeWord<uint16_t>(
        available + virtio::AVAIL_RING_OFFSET + (nextAvailable & (RING - 1)) * 2, chain * 3);
    ++nextAvailable;
  }
  // True when the device wants to be notified.
  bool publish() {
    uint16_t before = published;
    if (before == nextAvailable) return false;
    published = nextAvailable;
    virtio::storeIndex(available + virtio::AVAIL_INDEX_OFFSET, nextAvailable);
    uint16_t event = virtio::loadIndex(used + virtio::USED_RING_OFFSET + RING * 8);
    return virtio::passesEvent(event, before, nextAvailable);
  }
  // Calls done(chain) for each request that has ended.
  template <typename Done>
  void takeUsed(Done&& done) {
    uint16_t now = virtio::loadIndex(used + virtio::USED_INDEX_OFFSET);
    for (; nextUsed != now; nextUsed++) {
      done(virtio::loadWord<uint32_t>(used + virtio::USED_RING_OFFSET +
                                      (nextUsed & (RING - 1)) * 8) /
           3);
    }
    // No interrupt until the index comes round again.
    virtio::storeWord<uint16_t>(available + virtio::AVAIL_RING_OFFSET + RING * 2, nextUsed - 1);
  }
  // Throws unless each request that ended ended well.
  void checkStatuses() const;

 private:
  virtio::testing::FakeRam& ram;
  const uint32_t depth;
  const uint32_t type;
  const virtio::RingLayout layout;
  const uint64_t headers;
  const uint64_t statuses;
  kj::byte* const available;
  kj::byte* const used;
  uint16_t nextAvailable = 0;
  uint16_t published = 0;
  uint16_t nextUsed = 0;
};

struct LeanFigures {
  double iops;
  double kicksPerRequest;
};

// Keeps the driver's requests in flight for a time; the first call begins them. `kick` is the
// queue's eventfd.
class LeanLoop {
 public:
  LeanLoop(LeanDriver& driver, const LeanDriver::Load& load, uint64_t diskBytes, int kick);
  LeanFigures run(double seconds);

 private:
  void notify();

  LeanDriver& driver;
  RandomBlocks blocks;
  const int kick;
  uint64_t kicks = 0;
};

// The same requests by one thread that calls preadv() or pwritev() for each: what the host itself
// costs.
double measureBareLoop(int fd, const LeanDriver::Load& load, uint64_t diskBytes, double seconds);

// The calling thread, and what it starts from now on, stay on one CPU, where there are so many.
void pinTo(int cpu);

}  // namespace troupe::blk::testing
