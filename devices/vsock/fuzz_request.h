#pragma once

#include <cstring>

#include "devices/vsock/wire.h"
#include "tests/fuzz/fuzzed_device.h"

namespace troupe::vsock {

constexpr uint64_t FUZZED_CID = 3;

// What a driver of virtio-vsock puts into its queues, as `op` chooses and spoils it: room for a
// packet, or one of its own. Few ports, so that packets meet streams.
inline void chooseRequest(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  request.pieces = uint8_t(op.a >> 4);
  if (op.a & 1) {
    request.writable = op.b & 1 ? 4096 : op.b % 300;
    return;
  }
  PacketHeader header = {};
  header.sourceCid = FUZZED_CID;
  header.destinationCid = HOST_CID;
  header.sourcePort = 10 + op.b % 2;
  // Ports of ours are given from 2^30 on: those that clients of the host have got.
  header.destinationPort = op.a & 2 ? (1u << 30) + (op.b >> 2) % 4 : 50 + (op.b >> 1) % 3;
  header.type = TYPE_STREAM;
  constexpr uint16_t OPS[] = {
      OP_REQUEST, OP_REQUEST,       OP_RESPONSE,       OP_RESPONSE, OP_RST,      OP_RW, OP_RW,
      OP_RW,      OP_CREDIT_UPDATE, OP_CREDIT_REQUEST, OP_RW,       OP_SHUTDOWN, 0,     8};
  header.op = OPS[(op.b >> 4) % 14];
  header.flags = (op.b >> 8) % 4;
  header.bufferSize = op.a & 4 ? op.c : 1 << 16;
  header.forwarded = uint32_t(op.d >> 32);
  if (header.op == OP_RW) {
    request.readable = op.c % 40000;
    header.length = op.a & 8 ? uint32_t(op.d) : request.readable;
  }
  // One field in a while is anything.
  switch ((op.b >> 10) % 16) {
    case 0:
      header.sourceCid = op.d;
      break;
    case 1:
      header.destinationCid = op.d;
      break;
    case 2:
      header.type = uint16_t(op.d);
      break;
    case 3:
      header.op = uint16_t(op.d);
      break;
    default:
      break;
  }
  auto* bytes = reinterpret_cast<const kj::byte*>(&header);
  request.header.assign(bytes, bytes + sizeof(header));
}

}  // namespace troupe::vsock
