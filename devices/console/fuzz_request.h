#pragma once

#include <cstring>

#include "devices/console/wire.h"
#include "tests/fuzz/fuzzed_device.h"

namespace troupe::console {

// A control message, of a port that is there or nearly so, whole or cut short.
inline void chooseControlMessage(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  ControlMessage message;
  message.port = op.b & 4 ? op.c : op.c % 5;
  message.event = op.b & 8 ? op.d : op.d % 9;
  message.value = op.b & 16 ? op.d >> 16 : (op.d >> 16) % 2;
  size_t size = op.b & 32 ? op.b >> 8 & 7 : sizeof(message);
  request.header.resize(size);
  if (size > 0) memcpy(request.header.data(), &message, size);
  request.cut = op.b >> 11 & 7;
}

// What a driver of virtio-console puts into its queues, as `op` chooses: text, room for some, or a
// control message.
inline void chooseRequest(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  if (op.b & 2) return chooseControlMessage(op, request);
  uint32_t bytes = op.b & 1 ? op.c % 40000 : op.c % 80;
  request.readable = op.a & 1 ? bytes : 0;
  request.writable = op.a & 1 ? 0 : bytes;
  request.pieces = op.a >> 1;
}

}  // namespace troupe::console
