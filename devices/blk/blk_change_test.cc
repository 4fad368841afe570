// Discards, zeroes and the choice of cache mode, as a driver meets them.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "devices/blk/blk_engine.h"
#include "devices/blk/testing/any_medium.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/virtio/wire.h"

namespace troupe::blk {
namespace {

using testing::BlkBench;
using testing::filled;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectors;
using virtio::testing::Buffer;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint64_t MIB = 1 << 20;
constexpr uint64_t WRITEBACK = offsetof(virtio::BlkConfigSpace, writeback);

bool isZero(kj::ArrayPtr<const kj::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](kj::byte byte) { return byte == 0; });
}

uint64_t placeOf(const ScratchDisk& file) {
  struct stat info;
  KJ_SYSCALL(fstat(file.fd(), &info));
  return uint64_t(info.st_blocks) * 512;
}

BlkBench::Sent sendRange(BlkBench& bench, uint32_t type, uint64_t sector, uint32_t count,
                         uint32_t flags = 0) {
  virtio::BlkRange range{sector, count, flags};
  Buffer buffer = bench.driver().readableBuffer(kj::arrayPtr(&range, 1).asBytes());
  return bench.send(type, 0, kj::arrayPtr(&buffer, 1));
}

uint8_t statusOfRange(BlkBench& bench, uint32_t type, uint64_t sector, uint32_t count,
                      uint32_t flags = 0) {
  auto reply = bench.wait(sendRange(bench, type, sector, count, flags));
  EXPECT_EQ(reply.written, 1);
  return reply.status;
}

class BlkChange: public testing::OnAnyMedium {};
INSTANTIATE_ON_ANY_MEDIUM(BlkChange);

TEST_P(BlkChange, DiscardGivesPlaceBackToTheHost) {
  ScratchDisk file(GetParam(), 4 * MIB);
  uint64_t before = placeOf(file);
  BlkBench bench(file.fd());
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_DISCARD, 2048, 4096), virtio::BLK_S_OK);
  EXPECT_LE(placeOf(file), before - MIB);
  EXPECT_TRUE(file.contents(0, MIB) == sectors(0, 2048));
  EXPECT_TRUE(file.contents(3 * MIB, MIB) == sectors(6144, 2048));
}

TEST_P(BlkChange, ZeroesAreReadBack) {
  for (uint32_t flags : {0u, virtio::BLK_RANGE_UNMAP}) {
    ScratchDisk file(GetParam(), 4 * MIB);
    BlkBench bench(file.fd());
    // A size that no single piece of zeroes has.
    uint32_t count = 2048 + 512 + 8;
    EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_WRITE_ZEROES, 2048, count, flags),
              virtio::BLK_S_OK);
    EXPECT_TRUE(isZero(file.contents(MIB, count * 512ull)));
    EXPECT_TRUE(file.contents(0, MIB) == sectors(0, 2048));
    EXPECT_TRUE(file.contents(MIB + count * 512ull, 512) == sectors(2048 + count, 1));
  }
}

TEST_P(BlkChange, ZeroesKeepTheirPlaceUnlessTheDriverLetsItGo) {
  ScratchDisk file(GetParam(), 4 * MIB);
  uint64_t before = placeOf(file);
  BlkBench bench(file.fd());
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_WRITE_ZEROES, 0, 4096), virtio::BLK_S_OK);
  EXPECT_GE(placeOf(file), before);
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_WRITE_ZEROES, 0, 4096, virtio::BLK_RANGE_UNMAP),
            virtio::BLK_S_OK);
  EXPECT_LE(placeOf(file), before - MIB);
}

TEST_P(BlkChange, AllAtOnceAndMixedWithTransfers) {
  ScratchDisk file(GetParam(), 8 * MIB);
  BlkBench bench(file.fd());
  auto ones = filled(4096, 0x11);
  kj::Vector<BlkBench::Sent> sent;
  for (uint64_t i = 0; i < 16; i++) {
    sent.add(bench.sendWrite(i * 64, ones));
    sent.add(sendRange(bench, virtio::BLK_T_WRITE_ZEROES, i * 64 + 16, 8));
    sent.add(sendRange(bench, virtio::BLK_T_DISCARD, i * 64 + 32, 8));
  }
  bench.device.kick(0);
  bench.device.waitUntil([&] { return bench.driver().usedIndex() == sent.size(); });
  for (auto& one : sent)
    EXPECT_EQ(bench.status(one), virtio::BLK_S_OK);
  for (uint64_t i = 0; i < 16; i++) {
    EXPECT_TRUE(file.contents(i * 64 * 512, 4096) == ones);
    EXPECT_TRUE(isZero(file.contents((i * 64 + 16) * 512, 4096)));
    EXPECT_TRUE(file.contents((i * 64 + 8) * 512, 512) == sectors(i * 64 + 8, 1));
  }
}

TEST_P(BlkChange, ADriverWithoutFlushGetsDurableZeroes) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench::Options options;
  options.features = testing::FEATURES & ~virtio::BLK_F_FLUSH;
  BlkBench bench(file.fd(), options);
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_WRITE_ZEROES, 0, 8), virtio::BLK_S_OK);
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_WRITE_ZEROES, 8, 8, virtio::BLK_RANGE_UNMAP),
            virtio::BLK_S_OK);
  EXPECT_TRUE(isZero(file.contents(0, 8192)));
}

TEST_P(BlkChange, BLK04_RangesOutsideTheLimitsChangeNothing) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench bench(file.fd());
  for (uint32_t type : {virtio::BLK_T_DISCARD, virtio::BLK_T_WRITE_ZEROES}) {
    EXPECT_EQ(statusOfRange(bench, type, 0, 0), virtio::BLK_S_OK);
    EXPECT_EQ(statusOfRange(bench, type, 2048, 0), virtio::BLK_S_OK);
    EXPECT_EQ(statusOfRange(bench, type, 2041, 8), virtio::BLK_S_IOERR);
    EXPECT_EQ(statusOfRange(bench, type, 2048, 8), virtio::BLK_S_IOERR);
    EXPECT_EQ(statusOfRange(bench, type, ~0ull, 8), virtio::BLK_S_IOERR);
    EXPECT_EQ(statusOfRange(bench, type, 1ull << 55, 8), virtio::BLK_S_IOERR);
    EXPECT_EQ(statusOfRange(bench, type, 0, ~0u), virtio::BLK_S_IOERR);
    EXPECT_EQ(statusOfRange(bench, type, 8, ~0u - 7), virtio::BLK_S_IOERR);
    EXPECT_EQ(statusOfRange(bench, type, 0, 8, 2), virtio::BLK_S_UNSUPP);
    EXPECT_EQ(statusOfRange(bench, type, 0, 8, ~0u), virtio::BLK_S_UNSUPP);
  }
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_DISCARD, 0, 8, virtio::BLK_RANGE_UNMAP),
            virtio::BLK_S_UNSUPP);
  EXPECT_TRUE(file.contents(0, MIB) == sectors(0, 2048));
}

TEST(BlkChange, BLK04_RangesAreOneAndWhole) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  uint64_t address = bench.allocate(64);
  memset(bench.ram.bytes(address, 64).begin(), 0, 64);
  for (uint32_t bytes : {0u, 1u, 15u, 17u, 32u, 64u}) {
    Buffer buffer = readable(address, bytes);
    auto reply =
        bench.wait(bench.send(virtio::BLK_T_DISCARD, 0, kj::arrayPtr(&buffer, bytes == 0 ? 0 : 1)));
    EXPECT_EQ(reply.status, virtio::BLK_S_IOERR) << bytes;
  }
  Buffer answer = writable(address, 16);
  EXPECT_EQ(bench.wait(bench.send(virtio::BLK_T_WRITE_ZEROES, 0, kj::arrayPtr(&answer, 1))).status,
            virtio::BLK_S_IOERR);
  EXPECT_TRUE(file.contents(0, MIB) == sectors(0, 2048));
}

TEST(BlkChange, BLK04_ARangeMayBeSplitAnyhow) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  virtio::BlkRange range{8, 8, 0};
  auto bytes = kj::arrayPtr(&range, 1).asBytes();
  Buffer pieces[16];
  for (size_t i = 0; i < 16; i++)
    pieces[i] = bench.driver().readableBuffer(bytes.slice(i, i + 1));
  EXPECT_EQ(bench.wait(bench.send(virtio::BLK_T_WRITE_ZEROES, 0, pieces)).status, virtio::BLK_S_OK);
  EXPECT_TRUE(isZero(file.contents(4096, 4096)));
}

TEST(BlkChange, BLK03_AReadOnlyDiskIsNotChanged) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.access = Disk::Access::READ_ONLY;
  BlkBench bench(file.fd(), options);
  auto features = bench.device.describe().getInfo().getFeatures();
  EXPECT_EQ(features & (virtio::BLK_F_DISCARD | virtio::BLK_F_WRITE_ZEROES), 0);
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_DISCARD, 0, 8), virtio::BLK_S_IOERR);
  EXPECT_EQ(statusOfRange(bench, virtio::BLK_T_WRITE_ZEROES, 0, 8), virtio::BLK_S_IOERR);
  EXPECT_TRUE(file.contents(0, MIB) == sectors(0, 2048));
}

TEST(BlkChange, LimitsAreAnnounced) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  auto response = bench.device.describe();
  virtio::BlkConfigSpace config;
  ASSERT_EQ(response.getInfo().getConfig().size(), sizeof(config));
  memcpy(&config, response.getInfo().getConfig().begin(), sizeof(config));
  EXPECT_EQ(config.maxDiscardSectors, MAX_DISCARD_BYTES / 512);
  EXPECT_EQ(config.maxDiscardSegments, 1);
  EXPECT_EQ(config.discardSectorAlignment, 1);
  EXPECT_EQ(config.maxWriteZeroesSectors, MAX_ZEROES_BYTES / 512);
  EXPECT_EQ(config.maxWriteZeroesSegments, 1);
  EXPECT_EQ(config.writeZeroesMayUnmap, 1);
  EXPECT_EQ(config.writeback, 1);
  // A page of the tmpfs, in blocks of 512.
  EXPECT_EQ(config.physicalBlockExponent, 3);
  EXPECT_EQ(config.minIoSize, 8);
}

// What O_DIRECT announces must be what it takes.
TEST(BlkChange, ADiskWithLargeBlocksHasRangesOfThem) {
  DiskShape shape{MIB, 4096, false};
  virtio::testing::FakeRam ram;
  virtio::testing::FakeDriver driver(ram, 256);
  auto memory = ram.memory();
  virtio::Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
  auto statusOf = [&](uint64_t sector, uint32_t count) -> int {
    virtio::BlkRequestHeader header{virtio::BLK_T_DISCARD, 0, 0};
    virtio::BlkRange range{sector, count, 0};
    driver.add({driver.readableBuffer(kj::arrayPtr(&header, 1).asBytes()),
                driver.readableBuffer(kj::arrayPtr(&range, 1).asBytes()),
                driver.writableBuffer(1)});
    virtio::Chain chain = KJ_ASSERT_NONNULL(queue.pop());
    return KJ_ASSERT_NONNULL(parse(chain, shape)).status;
  };
  EXPECT_EQ(statusOf(8, 8), virtio::BLK_S_OK);
  EXPECT_EQ(statusOf(1, 8), virtio::BLK_S_IOERR);
  EXPECT_EQ(statusOf(8, 1), virtio::BLK_S_IOERR);
}

TEST(BlkChange, TheDriverMayTurnItsCacheOffAndOn) {
  ScratchDisk file(Medium::CACHED, MIB);
  BlkBench bench(file.fd());
  auto mask = kj::heapArray<kj::byte>(bench.device.describe().getInfo().getConfigWriteMask());
  for (size_t i = 0; i < mask.size(); i++)
    EXPECT_EQ(mask[i], i == WRITEBACK ? 1 : 0) << i;
  auto ones = filled(4096, 0x11);
  for (kj::byte mode : {kj::byte(0), kj::byte(1)}) {
    bench.device.writeConfig(WRITEBACK, kj::arrayPtr(&mode, 1));
    EXPECT_EQ(bench.wait(bench.sendWrite(8, ones)).status, virtio::BLK_S_OK);
  }
  // Wherever a write to the configuration space begins and ends, it means that byte only.
  kj::byte all[sizeof(virtio::BlkConfigSpace)] = {};
  bench.device.writeConfig(0, all);
  bench.device.writeConfig(WRITEBACK + 1, kj::arrayPtr(all, 4));
  bench.device.writeConfig(0, kj::arrayPtr(all, WRITEBACK));
  EXPECT_EQ(bench.wait(bench.sendFlush()).status, virtio::BLK_S_OK);
  EXPECT_TRUE(file.contents(8 * 512, 4096) == ones);
}

}  // namespace
}  // namespace troupe::blk
