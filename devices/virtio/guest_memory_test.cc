#include "devices/virtio/guest_memory.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

namespace troupe::virtio {
namespace {

constexpr uint64_t KIB = 1024;

kj::byte low[8 * KIB];
kj::byte high[4 * KIB];

GuestMemory twoRegions() {
  return GuestMemory(
      kj::heapArray<MemoryRegion>({{0x1000, sizeof(low), low}, {0x100000, sizeof(high), high}}));
}

GuestMemory atTheTop() {
  // The last page of the address space but one byte, which no region can reach without wrapping.
  return GuestMemory(kj::heapArray<MemoryRegion>({{UINT64_MAX - 4096, 4096, low}}));
}

TEST(GuestMemory, SlicesLieWhereTheRegionIs) {
  GuestMemory memory = twoRegions();
  EXPECT_EQ(KJ_ASSERT_NONNULL(memory.slice(0x1000, 1)).begin(), low);
  EXPECT_EQ(KJ_ASSERT_NONNULL(memory.slice(0x1010, 16)).begin(), low + 16);
  EXPECT_EQ(KJ_ASSERT_NONNULL(memory.slice(0x100000, sizeof(high))).begin(), high);
}

TEST(GuestMemory, WholeRegionButNotAByteMore) {
  GuestMemory memory = twoRegions();
  EXPECT_TRUE(memory.slice(0x1000, sizeof(low)) != nullptr);
  EXPECT_TRUE(memory.slice(0x1000, sizeof(low) + 1) == nullptr);
  EXPECT_TRUE(memory.slice(0x0fff, 2) == nullptr);
  EXPECT_TRUE(memory.slice(0x1000 + sizeof(low) - 1, 1) != nullptr);
  EXPECT_TRUE(memory.slice(0x1000 + sizeof(low) - 1, 2) == nullptr);
  EXPECT_TRUE(memory.slice(0x1000 + sizeof(low), 1) == nullptr);
}

TEST(GuestMemory, NothingIsNeverInside) {
  EXPECT_TRUE(twoRegions().slice(0x1000, 0) == nullptr);
}

TEST(GuestMemory, SumsThatOverflowAreOutside) {
  GuestMemory memory = twoRegions();
  EXPECT_TRUE(memory.slice(UINT64_MAX, 1) == nullptr);
  EXPECT_TRUE(memory.slice(UINT64_MAX, UINT64_MAX) == nullptr);
  EXPECT_TRUE(memory.slice(0x1000, UINT64_MAX) == nullptr);
  EXPECT_TRUE(memory.slice(0x1001, UINT64_MAX - 0x1000) == nullptr);
  EXPECT_TRUE(memory.slice(0, UINT64_MAX) == nullptr);
  GuestMemory top = atTheTop();
  EXPECT_TRUE(top.slice(UINT64_MAX - 1, 1) != nullptr);
  EXPECT_TRUE(top.slice(UINT64_MAX - 1, 2) == nullptr);
  EXPECT_TRUE(top.slice(UINT64_MAX, 1) == nullptr);
}

TEST(GuestMemory, RegionsThatCannotBeAreRefused) {
  auto make = [](std::initializer_list<MemoryRegion> regions) {
    GuestMemory memory(kj::heapArray<MemoryRegion>(regions));
  };
  EXPECT_ANY_THROW(make({{0x1000, 0, low}}));
  EXPECT_ANY_THROW(make({{UINT64_MAX - 10, 4096, low}}));
  EXPECT_ANY_THROW(make({{0x1000, 4096, low}, {0x1fff, 4096, high}}));
  EXPECT_ANY_THROW(make({{0x100000, 4096, high}, {0x1000, 4096, low}}));
  EXPECT_ANY_THROW(make({{0x1000, 4096, low}, {0x1000, 4096, high}}));
}

TEST(GuestMemory, CopiesKeepEveryByteAtEveryAlignment) {
  constexpr size_t LONGEST = 300;  // longer than what is copied word by word
  alignas(8) kj::byte guest[LONGEST + 24];
  for (size_t offset = 0; offset < 8; offset++) {
    for (size_t size = 0; size <= LONGEST; size++) {
      kj::byte bytes[LONGEST];
      kj::byte back[LONGEST] = {};
      memset(guest, 0xee, sizeof(guest));
      for (size_t i = 0; i < size; i++)
        bytes[i] = i + 1;
      copyIn(guest + offset, kj::arrayPtr(bytes, size));
      copyOut(kj::arrayPtr(back, size), guest + offset);
      ASSERT_EQ(memcmp(bytes, back, size), 0);
      ASSERT_EQ(guest[offset + size], 0xee);
      if (offset > 0) {
        ASSERT_EQ(guest[offset - 1], 0xee);
      }
    }
  }
}

}  // namespace
}  // namespace troupe::virtio
