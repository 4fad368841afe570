#pragma once

#include <cstddef>
#include <cstdint>

namespace troupe::balloon {

// The round of free page hints that the host has asked for (§5.5.6.7).
struct HintRound {
  uint32_t wanted = 0;
  uint32_t isOpen = 0;  // the driver has begun it
};

// One number the driver tells of its memory (§5.5.6.3).
struct Statistic {
  uint16_t tag;
  uint64_t value;
};

// Those it has told last.
struct KeptStatistics {
  static constexpr size_t MOST =
      64;                 // the spec has 10, Linux 16; of what comes behind nothing is read
  uint64_t readAtNs = 0;  // by the monotonic clock; 0 when there are none
  uint64_t count = 0;
  Statistic last[MOST];
};

// What a balloon's process leaves to whoever takes its place, in memory that outlives it. A process
// that somebody took over may leave anything: each value stands for something that this process
// could as well have said while it lived.
struct KeptBalloon {
  uint32_t numPages = 0;           // as in the configuration space, little-endian
  uint32_t freePageHintCmdId = 0;  // likewise
  uint32_t nextRound = 0;
  HintRound round;
  uint64_t givenBackBytes = 0;
  uint64_t freePageBytes = 0;
  KeptStatistics statistics;
};

}  // namespace troupe::balloon
