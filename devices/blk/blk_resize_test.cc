#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "devices/blk/testing/any_medium.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"

namespace troupe::blk {
namespace {

using testing::BlkBench;
using testing::filled;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectors;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;

// The text of what diskSize() throws; empty when it does not.
std::string refusal(BlkBench& bench, uint64_t bytes) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { bench.device.diskSize(bytes); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

uint64_t told(const virtio::testing::FakeHost::ConfigChange& change) {
  EXPECT_EQ(change.offset, 0u);
  uint64_t capacity = 0;
  EXPECT_EQ(change.data.size(), sizeof(capacity));
  memcpy(&capacity, change.data.begin(), kj::min(sizeof(capacity), change.data.size()));
  return capacity;
}

class BlkResize: public testing::OnAnyMedium {};
INSTANTIATE_ON_ANY_MEDIUM(BlkResize);

TEST_P(BlkResize, TheDriverIsToldAndMayUseWhatIsNew) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench bench(file.fd());
  EXPECT_EQ(bench.wait(bench.sendWrite(2048, filled(BLOCK, 1))).status, virtio::BLK_S_IOERR);
  file.truncate(2 * MIB);
  EXPECT_EQ(bench.wait(bench.sendWrite(2048, filled(BLOCK, 1))).status, virtio::BLK_S_IOERR)
      << "nobody said so";
  bench.device.diskSize(2 * MIB);
  ASSERT_EQ(bench.device.host.configChanges.size(), 1u);
  EXPECT_EQ(told(bench.device.host.configChanges[0]), 4096u);
  EXPECT_EQ(bench.wait(bench.sendWrite(2048, filled(BLOCK, 1))).status, virtio::BLK_S_OK);
  EXPECT_EQ(bench.wait(bench.sendWrite(4096 - 8, filled(BLOCK, 2))).status, virtio::BLK_S_OK);
  EXPECT_EQ(bench.wait(bench.sendWrite(4096, filled(BLOCK, 1))).status, virtio::BLK_S_IOERR);
  EXPECT_EQ(bench.wait(bench.sendFlush()).status, virtio::BLK_S_OK);
  EXPECT_TRUE(file.contents(MIB, BLOCK) == filled(BLOCK, 1));
  EXPECT_TRUE(file.contents(2 * MIB - BLOCK, BLOCK) == filled(BLOCK, 2));
  EXPECT_TRUE(file.contents(0, MIB) == sectors(0, 2048));
}

TEST_P(BlkResize, ItGrowsWhileRequestsAreUnderWay) {
  ScratchDisk file(GetParam(), MIB);
  file.dropCache();
  BlkBench bench(file.fd());
  for (uint64_t megabytes = 2; megabytes < 10; megabytes++) {
    kj::Vector<BlkBench::Sent> sent;
    for (uint64_t i = 0; i < 32; i++)
      sent.add(i % 2 ? bench.sendRead(i * 8, BLOCK) : bench.sendWrite(i * 8, filled(BLOCK, i)));
    bench.device.kick(0);
    file.truncate(megabytes * MIB);
    bench.device.diskSize(megabytes * MIB);
    for (size_t i = 0; i < sent.size(); i++)
      bench.device.waitForUsed(0, bench.driver());
    for (auto& one : sent)
      EXPECT_EQ(bench.status(one), virtio::BLK_S_OK);
    EXPECT_EQ(told(bench.device.host.configChanges.back()), megabytes * 2048);
  }
  EXPECT_EQ(bench.device.host.configChanges.size(), 8u);
}

TEST_P(BlkResize, WithoutADriverTheNextOneIsTold) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench bench(file.fd());
  bench.device.reset();
  file.truncate(2 * MIB);
  bench.device.diskSize(2 * MIB);
  EXPECT_EQ(bench.device.host.configChanges.size(), 0u);
  bench.activateAgain();
  bench.device.settle();
  ASSERT_EQ(bench.device.host.configChanges.size(), 1u);
  EXPECT_EQ(told(bench.device.host.configChanges[0]), 4096u);
  bench.device.reset();
  bench.activateAgain();
  bench.device.settle();
  EXPECT_EQ(bench.device.host.configChanges.size(), 1u) << "once is enough";
  EXPECT_EQ(bench.wait(bench.sendWrite(4088, filled(BLOCK, 1))).status, virtio::BLK_S_OK);
}

TEST_P(BlkResize, WhatTheFileDoesNotHaveIsRefused) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench bench(file.fd());
  EXPECT_NE(refusal(bench, 2 * MIB).find("TRP-blk-013"), std::string::npos);
  file.truncate(2 * MIB - BLOCK);
  EXPECT_NE(refusal(bench, 2 * MIB).find("TRP-blk-013"), std::string::npos);
  EXPECT_NE(refusal(bench, MIB - 512).find("TRP-blk-011"), std::string::npos);
  EXPECT_NE(refusal(bench, 0).find("TRP-blk-011"), std::string::npos);
  EXPECT_NE(refusal(bench, 2 * MIB + 1).find("TRP-blk-014"), std::string::npos);
  EXPECT_NE(refusal(bench, uint64_t(1) << 63), "");
  EXPECT_EQ(refusal(bench, MIB), "") << "the size it has";
  EXPECT_EQ(bench.device.host.configChanges.size(), 0u);
  EXPECT_EQ(bench.wait(bench.sendWrite(2048, filled(BLOCK, 1))).status, virtio::BLK_S_IOERR);
  EXPECT_EQ(bench.wait(bench.sendWrite(2040, filled(BLOCK, 1))).status, virtio::BLK_S_OK);
}

TEST(BlkResizeModes, AReadOnlyAndAVolatileDiskKeepTheirSize) {
  ScratchDisk file(Medium::CACHED, MIB);
  auto readOnly = file.openReadOnly();
  BlkBench::Options options;
  options.access = Disk::Access::READ_ONLY;
  {
    BlkBench bench(readOnly, options);
    EXPECT_NE(refusal(bench, 2 * MIB).find("TRP-blk-014"), std::string::npos);
  }
  options.volatileBytes = MIB;
  BlkBench bench(readOnly, options);
  EXPECT_NE(refusal(bench, 2 * MIB).find("TRP-blk-014"), std::string::npos);
  bench.device.consoleSize(80, 25);  // an event of another kind is nothing to it
  EXPECT_EQ(bench.wait(bench.sendWrite(0, filled(BLOCK, 1))).status, virtio::BLK_S_OK);
}

}  // namespace
}  // namespace troupe::blk
