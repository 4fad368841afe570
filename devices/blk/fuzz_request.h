#pragma once

#include <cstring>

#include "devices/blk/blk_wire.h"
#include "tests/fuzz/fuzzed_device.h"

namespace troupe::blk {

constexpr uint64_t FUZZED_DISK_BYTES = 256 << 10;

// What a driver of virtio-blk asks for, as `op` chooses and spoils it.
inline void chooseRequest(const fuzz::Op& op, fuzz::RequestTemplate& request) {
  constexpr uint32_t TYPES[] = {
      virtio::BLK_T_IN,      virtio::BLK_T_OUT,          virtio::BLK_T_FLUSH, virtio::BLK_T_GET_ID,
      virtio::BLK_T_DISCARD, virtio::BLK_T_WRITE_ZEROES, virtio::BLK_T_IN,    virtio::BLK_T_OUT};

  virtio::BlkRequestHeader header = {TYPES[op.a % 8], uint32_t(op.d), op.d};
  // Mostly somewhere on the disk, and mostly whole sectors.
  if (op.b & 0x10) header.sector = op.d % (FUZZED_DISK_BYTES / virtio::BLK_SECTOR_BYTES + 2);
  uint32_t bytes = op.b & 0x20 ? op.c % 20000 : op.c % 64 * virtio::BLK_SECTOR_BYTES;
  auto begin = reinterpret_cast<const kj::byte*>(&header);
  request.header.assign(begin, begin + sizeof(header));
  request.tail = 1;
  request.pieces = op.b;
  switch (header.type) {
    case virtio::BLK_T_IN:
      request.writable = bytes;
      break;
    case virtio::BLK_T_OUT:
      request.readable = bytes;
      break;
    case virtio::BLK_T_GET_ID:
      request.writable = op.c % 32;
      break;
    case virtio::BLK_T_DISCARD:
    case virtio::BLK_T_WRITE_ZEROES: {
      virtio::BlkRange range = {header.sector, op.b & 0x20 ? op.c : op.c % 64,
                                op.b & 0x40 ? uint32_t(op.b >> 12) : 0};
      begin = reinterpret_cast<const kj::byte*>(&range);
      request.header.insert(request.header.end(), begin, begin + sizeof(range));
      break;
    }
  }
  switch (op.a >> 4) {  // what else is wrong with it
    case 1:
      request.header.resize(op.b >> 8 & 31);
      break;
    case 2:
      request.cut = op.b >> 8 & 31;
      break;
    case 3:
      request.tail = op.b >> 8 & 3;
      break;
    case 4:
      request.readable = op.b >> 8;
      break;
    case 5:
      request.writable = op.b >> 8;
      break;
    case 6:
      memcpy(request.header.data(), &op.c, sizeof(op.c));
      break;
  }
}

}  // namespace troupe::blk
