#pragma once

#include <kj/common.h>

#include <cstdint>
#include <cstring>

// The words of a qcow2 file: all big-endian. Names and bits are the specification's
// (QEMU's docs/interop/qcow2.txt).
namespace troupe::blk::qcow2 {

inline uint64_t load64(const kj::byte* from) {
  uint64_t word;
  memcpy(&word, from, sizeof(word));
  return __builtin_bswap64(word);
}
inline uint32_t load32(const kj::byte* from) {
  uint32_t word;
  memcpy(&word, from, sizeof(word));
  return __builtin_bswap32(word);
}
inline uint16_t load16(const kj::byte* from) {
  uint16_t word;
  memcpy(&word, from, sizeof(word));
  return __builtin_bswap16(word);
}
inline void store64(kj::byte* to, uint64_t value) {
  uint64_t word = __builtin_bswap64(value);
  memcpy(to, &word, sizeof(word));
}
inline void store32(kj::byte* to, uint32_t value) {
  uint32_t word = __builtin_bswap32(value);
  memcpy(to, &word, sizeof(word));
}
inline void store16(kj::byte* to, uint16_t value) {
  uint16_t word = __builtin_bswap16(value);
  memcpy(to, &word, sizeof(word));
}

constexpr uint32_t MAGIC = 0x514649fb;
constexpr size_t HEADER_BYTES_V2 = 72;
constexpr size_t HEADER_BYTES_V3 = 104;

// Offsets of the header's fields that are written.
constexpr size_t AT_BACKING_OFFSET = 8;
constexpr size_t AT_BACKING_BYTES = 16;
constexpr size_t AT_SIZE = 24;
constexpr size_t AT_L1_ENTRIES = 36;
constexpr size_t AT_L1_OFFSET = 40;
constexpr size_t AT_REFCOUNT_TABLE_OFFSET = 48;
constexpr size_t AT_REFCOUNT_TABLE_CLUSTERS = 56;
constexpr size_t AT_INCOMPATIBLE = 72;
constexpr size_t AT_COMPATIBLE = 80;
constexpr size_t AT_AUTOCLEAR = 88;
constexpr size_t AT_REFCOUNT_ORDER = 96;
constexpr size_t AT_HEADER_BYTES = 100;

constexpr uint64_t INCOMPATIBLE_DIRTY = 1 << 0;
constexpr uint64_t INCOMPATIBLE_CORRUPT = 1 << 1;
constexpr uint64_t INCOMPATIBLE_EXTERNAL_DATA = 1 << 2;
constexpr uint64_t INCOMPATIBLE_COMPRESSION = 1 << 3;
constexpr uint64_t INCOMPATIBLE_EXTENDED_L2 = 1 << 4;
constexpr uint64_t COMPATIBLE_LAZY_REFCOUNTS = 1 << 0;
constexpr uint64_t AUTOCLEAR_BITMAPS = 1 << 0;

constexpr uint32_t EXTENSION_END = 0;
constexpr uint32_t EXTENSION_BACKING_FORMAT = 0xe2792aca;

// Entries of L1, L2 and refcount tables.
constexpr uint64_t COPIED = 1ull << 63;      // exactly one reference; L1 and L2
constexpr uint64_t COMPRESSED = 1ull << 62;  // L2
constexpr uint64_t ALL_ZEROES = 1ull << 0;   // L2, version 3
constexpr uint64_t OFFSET_MASK = 0x00fffffffffffe00;
constexpr uint64_t L1_RESERVED = ~(COPIED | OFFSET_MASK);
constexpr uint64_t REFCOUNT_TABLE_RESERVED = 0x1ff;

// Limits, which QEMU has too: of the L1 table 32 MiB, of the refcount table 8 MiB.
constexpr uint32_t LEAST_CLUSTER_BITS = 9;
constexpr uint32_t MOST_CLUSTER_BITS = 21;
constexpr uint64_t MOST_L1_ENTRIES = (32 << 20) / 8;
constexpr uint64_t MOST_REFCOUNT_TABLE_BYTES = 8 << 20;
constexpr uint32_t MOST_SNAPSHOTS = 65536;
constexpr uint32_t MOST_REFCOUNT_ORDER = 6;
constexpr size_t MOST_BACKING_NAME_BYTES = 1023;
// Guest and host offsets stay far below where sums of them could overflow.
constexpr uint64_t MOST_BYTES = 1ull << 56;

// The arithmetic of clusters.
struct Geometry {
  uint32_t clusterBits;
  uint32_t refcountOrder;

  uint64_t clusterBytes() const { return 1ull << clusterBits; }
  uint64_t inCluster(uint64_t offset) const { return offset & (clusterBytes() - 1); }
  bool isAligned(uint64_t offset) const { return inCluster(offset) == 0; }
  uint64_t clusterOf(uint64_t offset) const { return offset >> clusterBits; }
  uint64_t clustersFor(uint64_t bytes) const {
    return (bytes >> clusterBits) + (inCluster(bytes) != 0);
  }
  uint32_t l2Bits() const { return clusterBits - 3; }
  uint64_t l2Entries() const { return 1ull << l2Bits(); }
  uint64_t l1EntriesFor(uint64_t bytes) const {
    uint64_t clusters = clustersFor(bytes);
    return (clusters + l2Entries() - 1) >> l2Bits();
  }
  uint64_t refcountsPerBlock() const { return (clusterBytes() * 8) >> refcountOrder; }
  uint64_t mostRefcount() const {
    return refcountOrder == 6 ? UINT64_MAX : (1ull << (1u << refcountOrder)) - 1;
  }
};

// Where a compressed cluster lies: `bytes` bytes, of which the last sector may be cut short by what
// follows.
struct CompressedExtent {
  uint64_t offset;
  uint64_t bytes;
};
inline CompressedExtent compressedExtent(uint64_t entry, const Geometry& geometry) {
  uint32_t offsetBits = 62 - (geometry.clusterBits - 8);
  uint64_t offset = entry & ((1ull << offsetBits) - 1);
  uint64_t sectors = ((entry & (COMPRESSED - 1)) >> offsetBits) + 1;
  return {offset, sectors * 512 - (offset & 511)};
}

}  // namespace troupe::blk::qcow2
