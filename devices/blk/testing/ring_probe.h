#pragma once

#include <cstdint>

namespace troupe::blk::testing {

// What came of the ring probe's attempts (ring_probe.cc): the results of completions, and of calls
// as the kernel gave them.
struct RingReport {
  int32_t opcodes[256];       // each operation, with the flags of the profile
  int32_t flags[256];         // READV with each combination of IOSQE_… flags
  int64_t registrations[64];  // each operation of io_uring_register
};

}  // namespace troupe::blk::testing
