#include "devices/balloon/page_batch.h"

#include <gtest/gtest.h>

#include <string>

#include "devices/balloon/wire.h"
#include "devices/virtio/testing/fake_ram.h"

namespace troupe::balloon {
namespace {

using virtio::testing::FakeRam;

constexpr uint64_t GIB = 1 << 30;
constexpr uint64_t MAX_BYTES = PageBatch::MAX_PAGES * PAGE_BYTES;

// RAM from 0 to 1 MiB and, of the same size, from 4 GiB on.
struct Bench {
  FakeRam ram{{0, FakeRam::MIB}, {4 * GIB, FakeRam::MIB}};
  virtio::GuestMemory memory = ram.memory();
  PageBatch batch{memory};

  // "0+4096 8192+4096"
  std::string ranges() {
    std::string text;
    for (auto& range : batch.ranges()) {
      if (!text.empty()) text += ' ';
      text += std::to_string(range.guestAddress) + "+" + std::to_string(range.size);
    }
    return text;
  }
  iovec buffer(uint64_t address, size_t size) { return iovec{ram.bytes(address, 1).begin(), size}; }
};

TEST(PageBatch, NeighboursAreOneRange) {
  Bench bench;
  for (uint32_t page : {3, 4, 5, 2, 9, 8})
    bench.batch.addPage(page);
  EXPECT_EQ(bench.ranges(), "8192+16384 32768+8192");
}

TEST(PageBatch, APageNamedTwiceCountsOnce) {
  Bench bench;
  for (uint32_t page : {7, 3, 7, 3, 7})
    bench.batch.addPage(page);
  EXPECT_EQ(bench.ranges(), "12288+4096 28672+4096");
}

TEST(PageBatch, BAL01_PagesOutsideRamAreIgnored) {
  Bench bench;
  for (uint32_t page : {256u, 0xe0000u, 0xfec00u, 0x100000u + 256, UINT32_MAX, 0u, 0x100000u})
    bench.batch.addPage(page);
  EXPECT_EQ(bench.ranges(), "0+4096 4294967296+4096");
}

TEST(PageBatch, OfABufferOnlyWholePagesAreTaken) {
  Bench bench;
  EXPECT_EQ(bench.batch.addBuffer(bench.buffer(100, 3 * 4096)), 3 * 4096u);
  EXPECT_EQ(bench.batch.addBuffer(bench.buffer(40960, 4095)), 4095u);
  EXPECT_EQ(bench.ranges(), "4096+8192");
}

TEST(PageBatch, NoRangeSpansTwoPiecesOfRam) {
  Bench bench;
  bench.batch.addPage(255);
  bench.batch.addPage(0x100000);
  EXPECT_EQ(bench.ranges(), "1044480+4096 4294967296+4096");
}

TEST(PageBatch, HoldsAsManyRangesAsACallMayName) {
  FakeRam ram(32 * FakeRam::MIB);
  auto memory = ram.memory();
  PageBatch batch(memory);
  for (uint32_t i = 0; !batch.isFull(); i++)
    batch.addPage(2 * i);
  EXPECT_EQ(batch.ranges().size(), PageBatch::MAX_RANGES);
  batch.clear();
  EXPECT_FALSE(batch.isFull());
  EXPECT_EQ(batch.ranges().size(), 0u);
}

// Or an array of a thousand million such numbers would be read in one turn.
TEST(PageBatch, BAL01_WhatIsLeftAloneIsWorkAsWell) {
  Bench bench;
  size_t looked = 0;
  for (; !bench.batch.isFull(); looked++)
    bench.batch.addPage(UINT32_MAX);
  EXPECT_EQ(looked, PageBatch::MAX_PAGES);
  EXPECT_TRUE(bench.batch.isEmpty());
  bench.batch.clear();
  for (looked = 0; !bench.batch.isFull(); looked++)
    bench.batch.addBuffer(bench.buffer(1, 8));
  EXPECT_EQ(looked, PageBatch::MAX_PAGES);
}

TEST(PageBatch, HoldsAsManyBytesAsACallMayNameAndSaysWhatIsLeft) {
  FakeRam ram(MAX_BYTES + FakeRam::MIB);
  auto memory = ram.memory();
  PageBatch batch(memory);
  auto all = ram.bytes(0, MAX_BYTES + FakeRam::MIB);
  iovec buffer{all.begin() + 10, all.size() - 10};
  EXPECT_EQ(batch.addBuffer(buffer), MAX_BYTES + 4096 - 10);
  EXPECT_TRUE(batch.isFull());
  EXPECT_EQ(batch.addBuffer(iovec{all.begin(), 4096}), 0u);
  EXPECT_EQ(batch.ranges().size(), 1u);
}

}  // namespace
}  // namespace troupe::balloon
