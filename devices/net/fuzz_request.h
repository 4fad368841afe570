#pragma once

#include <cstring>

#include "devices/net/frame.h"
#include "devices/net/net_wire.h"
#include "tests/fuzz/fuzzed_device.h"

namespace troupe::net {

constexpr MacAddress FUZZED_ADDRESS{{0x52, 0x54, 0, 0, 0, 1}};

// What a driver of virtio-net puts into its queues, as `op` chooses and spoils it: frames, room for
// some, commands.
inline void chooseRequest(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  auto append = [&](const void* bytes, size_t size) {
    auto begin = static_cast<const kj::byte*>(bytes);
    request.header.insert(request.header.end(), begin, begin + size);
  };
  request.pieces = op.b >> 4;
  switch (op.a % 4) {
    case 0:
    case 1: {  // a frame
      constexpr uint8_t TYPES[] = {0, 0, 1, 4, 3, 5, 0x81, 2};
      virtio::NetHeader header{};
      header.flags = op.b & 1;
      header.gsoType = TYPES[op.b >> 1 & 7];
      header.gsoSize = op.d >> 16;
      header.headerBytes = op.d >> 32 & 0x7f;
      header.checksumStart = op.b & 0x100 ? op.d : 34;
      header.checksumOffset = op.b & 0x200 ? op.d >> 48 : 16;
      append(&header, sizeof(header));
      kj::byte start[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
      memcpy(start + 6, FUZZED_ADDRESS.bytes, 6);
      memcpy(start + 22, FUZZED_ADDRESS.bytes, 6);
      start[12] = 8;
      start[13] = op.b >> 10 & 1 ? 6 : 0;
      if (op.b & 0x800) start[6 + op.d % 6] ^= 1;
      append(start, op.b & 0x1000 ? op.d % sizeof(start) : sizeof(start));
      request.readable = op.b & 0x2000 ? op.c : op.c % 2000;
      if (op.b & 0x4000) request.header.resize(op.d % 20);
      if (op.b & 0x8000) request.cut = op.d % 60;
      break;
    }
    case 2:  // room for frames
      request.writable = op.b & 8 ? op.c : op.c % 2100;
      break;
    default: {  // a command
      constexpr uint8_t COMMANDS[][3] = {{0, 0, 1}, {0, 1, 1}, {0, 5, 1}, {1, 0, 20},
                                         {1, 1, 6}, {3, 0, 0}, {4, 0, 2}, {5, 0, 8}};
      auto& command = COMMANDS[op.b % 8];
      append(command, 2);
      kj::byte data[24] = {};
      memcpy(data, &op.d, sizeof(op.d));
      if (op.b % 8 == 3 && !(op.b & 0x800)) {  // two tables of an address each
        data[0] = 1;
        memset(data + 1, 0, 3);
        memset(data + 10, 0, 4);
      }
      append(data, op.b & 0x1000 ? op.c % sizeof(data) : command[2]);
      if (op.b & 0x2000) request.readable = op.c % 2000;
      request.tail = op.b & 0x4000 ? op.c % 3 : 1;
      break;
    }
  }
}

}  // namespace troupe::net
