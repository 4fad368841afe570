#pragma once

#include <algorithm>

#include "tests/fuzz/fuzzed_device.h"

namespace troupe::balloon {

// What a driver of virtio-balloon sends, as `op` chooses: page numbers, statistics, the number of a
// round, or free pages.
inline void chooseRequest(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  auto add = [&](auto value) {
    auto bytes = reinterpret_cast<const kj::byte*>(&value);
    request.header.insert(request.header.end(), bytes, bytes + sizeof(value));
  };
  switch (op.a % 4) {
    case 0:
      for (uint32_t i = 0; i < op.b % 700u; i++)
        add(uint32_t(i % 7 == 3 ? op.d : op.c % 160 + i * (op.d % 3)));
      request.cut = op.d % 11;
      return;
    case 1:
      for (uint32_t i = 0; i < op.b % 90u; i++) {
        add(uint16_t(op.c + i));
        add(uint64_t(op.d));
      }
      request.readable = op.c % 13;
      return;
    case 2:
      add(uint32_t(op.c % 8));
      return;
    default:
      request.writable = op.c % 0x18000;
      request.pieces = op.b % 40;
      return;
  }
}

}  // namespace troupe::balloon
