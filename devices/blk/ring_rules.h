#pragma once

#include <kj/array.h>

#include <cstdint>

namespace troupe::blk {

// What the rings of this actor may be asked to do: its profile says so (`io_uring`).
struct RingRules {
  kj::ArrayPtr<const uint8_t> opcodes;  // IORING_OP_…
  uint8_t sqeFlags;                     // IOSQE_…: every operation has these and no others
};

// Of the profile built in, for who was not started with one.
RingRules builtInRingRules();

}  // namespace troupe::blk
