#pragma once

#include "tests/fuzz/fuzzed_device.h"

namespace troupe::rng {

// What a driver of virtio-rng asks for, as `op` chooses and spoils it.
inline void chooseRequest(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  request.header.assign(op.a & 1 ? op.b % 20 : 0, kj::byte(op.d));
  request.writable = op.c % 0x12000;
  request.pieces = op.a >> 1;
}

}  // namespace troupe::rng
