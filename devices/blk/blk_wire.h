#pragma once

#include <cstddef>
#include <cstdint>

namespace troupe::virtio {

// Virtio block device, §5.2.

// Feature bits, §5.2.3.
constexpr uint64_t BLK_F_SIZE_MAX = 1ull << 1;
constexpr uint64_t BLK_F_SEG_MAX = 1ull << 2;
constexpr uint64_t BLK_F_RO = 1ull << 5;
constexpr uint64_t BLK_F_BLK_SIZE = 1ull << 6;
constexpr uint64_t BLK_F_FLUSH = 1ull << 9;
constexpr uint64_t BLK_F_TOPOLOGY = 1ull << 10;
constexpr uint64_t BLK_F_CONFIG_WCE = 1ull << 11;
constexpr uint64_t BLK_F_MQ = 1ull << 12;
constexpr uint64_t BLK_F_DISCARD = 1ull << 13;
constexpr uint64_t BLK_F_WRITE_ZEROES = 1ull << 14;

struct BlkConfigSpace {  // struct virtio_blk_config, §5.2.4; little-endian
  uint64_t capacity;     // in units of 512 bytes, whatever blockSize says
  uint32_t sizeMax;      // bytes of one segment
  uint32_t segMax;       // segments of one request
  uint16_t cylinders;    // GEOMETRY
  uint8_t heads;
  uint8_t sectors;
  uint32_t blockSize;
  uint8_t physicalBlockExponent;  // TOPOLOGY
  uint8_t alignmentOffset;
  uint16_t minIoSize;
  uint32_t optIoSize;
  uint8_t writeback;  // CONFIG_WCE
  uint8_t unused0;
  uint16_t queueCount;         // MQ
  uint32_t maxDiscardSectors;  // DISCARD
  uint32_t maxDiscardSegments;
  uint32_t discardSectorAlignment;
  uint32_t maxWriteZeroesSectors;  // WRITE_ZEROES
  uint32_t maxWriteZeroesSegments;
  uint8_t writeZeroesMayUnmap;
  uint8_t unused1[3];
  uint32_t maxSecureEraseSectors;  // SECURE_ERASE
  uint32_t maxSecureEraseSegments;
  uint32_t secureEraseSectorAlignment;
};
static_assert(sizeof(BlkConfigSpace) == 72, "layout fixed by §5.2.4");
static_assert(offsetof(BlkConfigSpace, blockSize) == 20, "layout fixed by §5.2.4");
static_assert(offsetof(BlkConfigSpace, writeback) == 32, "layout fixed by §5.2.4");
static_assert(offsetof(BlkConfigSpace, queueCount) == 34, "layout fixed by §5.2.4");
static_assert(offsetof(BlkConfigSpace, writeZeroesMayUnmap) == 56, "layout fixed by §5.2.4");

// Request types, §5.2.6.
constexpr uint32_t BLK_T_IN = 0;
constexpr uint32_t BLK_T_OUT = 1;
constexpr uint32_t BLK_T_FLUSH = 4;
constexpr uint32_t BLK_T_GET_ID = 8;
constexpr uint32_t BLK_T_DISCARD = 11;
constexpr uint32_t BLK_T_WRITE_ZEROES = 13;

struct BlkRequestHeader {  // struct virtio_blk_req up to `data`, §5.2.6; little-endian
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;  // in units of 512 bytes, whatever blk_size says
};
static_assert(sizeof(BlkRequestHeader) == 16, "layout fixed by §5.2.6");

struct BlkRange {  // struct virtio_blk_discard_write_zeroes, §5.2.6; little-endian
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(BlkRange) == 16, "layout fixed by §5.2.6");
constexpr uint32_t BLK_RANGE_UNMAP = 1;  // WRITE_ZEROES: the place may be given back

// The status byte behind the data, §5.2.6.
constexpr uint8_t BLK_S_OK = 0;
constexpr uint8_t BLK_S_IOERR = 1;
constexpr uint8_t BLK_S_UNSUPP = 2;

constexpr uint32_t BLK_SECTOR_BYTES = 512;
constexpr size_t BLK_ID_BYTES = 20;  // NUL-padded, not terminated when it fills them, §5.2.6

}  // namespace troupe::virtio
