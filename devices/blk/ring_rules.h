#pragma once

#include <kj/array.h>

#include <cstdint>

namespace troupe::blk {

// What the rings of this actor may be asked to do: its profile says so (`io_uring`).
struct RingRules {
  kj::ArrayPtr<const uint8_t> opcodes;  // IORING_OP_…
  uint8_t sqeFlags;                     // IOSQE_…: every operation has these and no others
  // An fd that each ring holds as long as the kernel has a request of it, so that whoever has the
  // other end of that pipe sees when none is left; -1: none.
  int witness = -1;
};

// Of the profile built in, for who was not started with one.
RingRules builtInRingRules();

}  // namespace troupe::blk
