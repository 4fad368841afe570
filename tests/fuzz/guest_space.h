#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>
#include <cstring>

// The guest memory of a fuzzed device: 256 KiB in three regions with gaps between them, one of them
// above 4 GiB, and where a driver puts what into it.
namespace troupe::fuzz {

struct Region {
  uint64_t guestAddress;
  uint64_t size;
};
constexpr Region REGIONS[] = {{0, 0x18000}, {0x20000, 0x18000}, {0x100000000, 0x10000}};
constexpr size_t REGION_COUNT = 3;
constexpr uint64_t HOLE = 0x1c000;  // between the first two
constexpr kj::byte FILL = 0xa5;     // what memory nobody wrote holds

// The driver's places, all in the first region: a block for each queue's ring, indirect tables,
// headers and status bytes; data goes anywhere behind.
constexpr uint64_t RING_BLOCK = 0x2000;  // 256 descriptors and both rings
constexpr uint32_t MOST_QUEUES = 4;
constexpr uint64_t TABLES = RING_BLOCK * MOST_QUEUES;
constexpr uint64_t TABLES_SIZE = 0x4000;
constexpr uint64_t SMALL = TABLES + TABLES_SIZE;
constexpr uint64_t SMALL_SIZE = 0x4000;
constexpr uint64_t DATA = SMALL + SMALL_SIZE;
static_assert(DATA < REGIONS[0].size, "some data lies below the first gap");

// The guest's own access to it. In the arena of this process or in RAM shared with a jailed one.
class GuestSpace {
 public:
  // Null where [guestAddress, guestAddress + size) is not wholly inside one region.
  kj::byte* host(uint64_t guestAddress, uint64_t size) const {
    for (size_t i = 0; i < REGION_COUNT; i++) {
      uint64_t offset = guestAddress - REGIONS[i].guestAddress;
      if (offset < REGIONS[i].size) {
        return size <= REGIONS[i].size - offset ? begins[i] + offset : nullptr;
      }
    }
    return nullptr;
  }

  // The guest writes; nothing happens where there is no memory.
  void write(uint64_t guestAddress, kj::ArrayPtr<const kj::byte> bytes) {
    kj::byte* to = host(guestAddress, bytes.size());
    if (to == nullptr) return;
    guestWrites(to, bytes.size());
    memcpy(to, bytes.begin(), bytes.size());
  }
  template <typename T>
  void store(uint64_t guestAddress, T value) {
    write(guestAddress, kj::arrayPtr(reinterpret_cast<const kj::byte*>(&value), sizeof(value)));
  }
  // 0 where there is no memory.
  template <typename T>
  T load(uint64_t guestAddress) const {
    T value = 0;
    const kj::byte* from = host(guestAddress, sizeof(value));
    if (from != nullptr) memcpy(&value, from, sizeof(value));
    return value;
  }

 protected:
  ~GuestSpace() = default;
  virtual void guestWrites(kj::byte* /*host*/, size_t /*size*/) {}
  kj::byte* begins[REGION_COUNT];
};

}  // namespace troupe::fuzz
