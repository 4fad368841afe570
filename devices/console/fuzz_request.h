#pragma once

#include "tests/fuzz/fuzzed_device.h"

namespace troupe::console {

// What a driver of virtio-console puts into its queues, as `op` chooses: text, or room for some.
inline void chooseRequest(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  uint32_t bytes = op.b & 1 ? op.c % 40000 : op.c % 80;
  request.readable = op.a & 1 ? bytes : 0;
  request.writable = op.a & 1 ? 0 : bytes;
  request.pieces = op.a >> 1;
}

}  // namespace troupe::console
