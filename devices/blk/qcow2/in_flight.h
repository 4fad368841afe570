#pragma once

#include <kj/common.h>

#include <atomic>
#include <cstdint>

namespace troupe::blk::qcow2 {

// Who is moving bytes by a mapping looked up a while ago. A cluster that was unmapped may be given
// to somebody else only when all transfers that could know its old place are over.
//
// Each queue counts its transfers in a lane of its own, under the phase in which they began. Once
// nobody is left in the other phase, the phase changes. A mapping that was taken back before two
// such changes is held by nobody: transfers that began earlier were waited for by one or the other.
// Counts, phase and mappings are sequentially consistent, so who is counted too late to be waited
// for has looked its mapping up too late to see the old one.
class InFlight {
 public:
  static constexpr uint32_t MOST_LANES = 16;

  // `lane`: one per thread. Returns what end() is to get.
  uint8_t begin(uint32_t lane) {
    uint8_t now = phase.load();
    lanes[lane].counts[now].fetch_add(1);
    return now;
  }
  void end(uint32_t lane, uint8_t begun) { lanes[lane].counts[begun].fetch_sub(1); }

  // One thread at a time, under the image's lock.
  uint64_t changes() const { return phaseChanges; }
  void poll() {
    for (uint32_t i = 0; i < 2; i++) {
      uint8_t other = 1 - phase.load();
      for (Lane& lane : lanes) {
        if (lane.counts[other].load() != 0) return;
      }
      phase.store(other);
      phaseChanges++;
    }
  }

 private:
  struct alignas(64) Lane {
    std::atomic<uint32_t> counts[2] = {};
  };
  Lane lanes[MOST_LANES];
  std::atomic<uint8_t> phase{0};
  uint64_t phaseChanges = 0;
};

}  // namespace troupe::blk::qcow2
