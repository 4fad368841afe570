#pragma once

#include <kj/common.h>

#include "devices/blk/qcow2/format.h"

// The counts in a refcount block: words of 2^`order` bits. Those smaller than a byte stand with the
// lowest bits first, the others are big-endian.
namespace troupe::blk::qcow2 {

inline uint64_t loadCount(const kj::byte* block, uint32_t order, uint64_t slot) {
  switch (order) {
    case 3:
      return block[slot];
    case 4:
      return load16(block + slot * 2);
    case 5:
      return load32(block + slot * 4);
    case 6:
      return load64(block + slot * 8);
    default: {
      uint32_t bits = 1u << order;
      uint32_t shift = (slot * bits) % 8;
      return (block[slot * bits / 8] >> shift) & ((1u << bits) - 1);
    }
  }
}

// `count` fits a word.
inline void storeCount(kj::byte* block, uint32_t order, uint64_t slot, uint64_t count) {
  switch (order) {
    case 3:
      block[slot] = count;
      break;
    case 4:
      store16(block + slot * 2, count);
      break;
    case 5:
      store32(block + slot * 4, count);
      break;
    case 6:
      store64(block + slot * 8, count);
      break;
    default: {
      uint32_t bits = 1u << order;
      uint32_t shift = (slot * bits) % 8;
      uint32_t mask = ((1u << bits) - 1) << shift;
      kj::byte& whole = block[slot * bits / 8];
      whole = (whole & ~mask) | (count << shift);
      break;
    }
  }
}

}  // namespace troupe::blk::qcow2
