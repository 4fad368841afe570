#include "devices/rng/rng_engine.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <time.h>

#include <algorithm>
#include <string>

#include "devices/virtio/testing/device_bench.h"
#include "devices/virtio/testing/fake_driver.h"

namespace troupe::rng {
namespace {

using virtio::testing::DeviceBench;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;

struct Bench {
  explicit Bench(uint64_t ramBytes = 4 * FakeRam::MIB, RngRate rate = {})
      : ram(ramBytes), rate(rate) {
    device.attach();
    device.activate(FEATURES, {&driver});
  }
  FakeRam ram;
  RngRate rate;
  DeviceBench device{
      ram, [this](kj::AsyncIoContext& io) { return kj::heap<RngEngine>(io.unixEventPort, rate); }};
  FakeDriver driver{ram, 8};
};

uint64_t poisonIn(kj::ArrayPtr<const kj::byte> bytes) {
  return std::count(bytes.begin(), bytes.end(), FakeRam::POISON);
}

kj::Duration cpuTime() {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return used.tv_sec * kj::SECONDS + used.tv_nsec * kj::NANOSECONDS;
}

TEST(Rng, DescribesAnEntropyDeviceWithoutConfiguration) {
  Bench bench;
  auto response = bench.device.describe();
  EXPECT_EQ(response.getInfo().getDeviceType(), virtio::ID_ENTROPY);
  EXPECT_EQ(response.getInfo().getQueueSizes().size(), 1);  // §5.4.2
  EXPECT_EQ(response.getInfo().getConfig().size(), 0);      // §5.4.4
}

TEST(Rng, FillsTheBufferAndInterrupts) {
  Bench bench;
  bench.driver.wantInterrupts(true);
  uint64_t address = bench.ram.allocate(4096);
  uint16_t head = bench.driver.add({writable(address, 4096)});
  auto used = bench.device.waitForUsed(0, bench.driver);
  EXPECT_EQ(used.head, head);
  EXPECT_EQ(used.written, 4096);
  EXPECT_LT(poisonIn(bench.ram.bytes(address, 4096)), 100);  // 16 are expected
  EXPECT_TRUE(bench.device.interrupted(0));
}

TEST(Rng, TwoRequestsGetDifferentBytes) {
  Bench bench;
  uint64_t address = bench.ram.allocate(64);
  bench.driver.add({writable(address, 32), writable(address + 32, 32)});
  EXPECT_EQ(bench.device.waitForUsed(0, bench.driver).written, 64);
  EXPECT_NE(
      memcmp(bench.ram.bytes(address, 32).begin(), bench.ram.bytes(address + 32, 32).begin(), 32),
      0);
}

TEST(Rng, RequestMadeBeforeDriverOkIsServedWithoutAKick) {
  FakeRam ram;
  DeviceBench device(ram,
                     [](kj::AsyncIoContext& io) { return kj::heap<RngEngine>(io.unixEventPort); });
  FakeDriver driver(ram, 8);
  driver.add({writable(ram.allocate(64), 64)});
  device.attach();
  device.activate(FEATURES, {&driver});
  device.waitUntil([&] { return driver.usedIndex() == 1; });
}

TEST(Rng, ServesAThousandRequestsOneByOne) {
  Bench bench;
  bench.driver.wantInterrupts(false);
  uint64_t address = bench.ram.allocate(64);
  for (int i = 0; i < 1000; i++) {
    bench.driver.add({writable(address, 64)});
    ASSERT_EQ(bench.device.waitForUsed(0, bench.driver).written, 64);
  }
  EXPECT_FALSE(bench.device.interrupted(0));
}

TEST(Rng, ReadableBuffersAreLeftAlone) {
  Bench bench;
  uint64_t address = bench.ram.allocate(128);
  bench.driver.add({readable(address, 64), writable(address + 64, 64)});
  EXPECT_EQ(bench.device.waitForUsed(0, bench.driver).written, 64);
  EXPECT_EQ(poisonIn(bench.ram.bytes(address, 64)), 64);
}

TEST(Rng, NothingToFillIsAnsweredWithNothing) {
  Bench bench;
  bench.driver.add({readable(0x20000, 64)});
  EXPECT_EQ(bench.device.waitForUsed(0, bench.driver).written, 0);
}

TEST(Rng, RNG01_GigabytesAreAnsweredWithABoundedAmount) {
  Bench bench(1ull << 30);
  uint64_t start = 16 * FakeRam::MIB;
  for (int i = 0; i < 8; i++)
    bench.driver.add({writable(start, (1u << 30) - start)});
  auto before = cpuTime();
  for (int i = 0; i < 8; i++) {
    EXPECT_EQ(bench.device.waitForUsed(0, bench.driver).written, MAX_BYTES_PER_REQUEST);
  }
  EXPECT_LT(cpuTime() - before, 100 * kj::MILLISECONDS);
  // The used length is what was written, to the byte: behind it the file is still a hole.
  auto behind = bench.ram.bytes(start + MAX_BYTES_PER_REQUEST, 4096);
  EXPECT_EQ(std::count(behind.begin(), behind.end(), 0), 4096);
}

// The bound is on the chain, not on each of its buffers.
TEST(Rng, RNG01_ManyBuffersShareOneBound) {
  Bench bench;
  uint64_t address = FakeRam::MIB;
  uint32_t most = 60000;
  bench.driver.add({writable(address, most), writable(address + most, most)});
  EXPECT_EQ(bench.device.waitForUsed(0, bench.driver).written, MAX_BYTES_PER_REQUEST);
  EXPECT_EQ(poisonIn(bench.ram.bytes(address + MAX_BYTES_PER_REQUEST, 4096)), 4096);
}

// What is over the limit waits in the ring; the debt of a request that was larger than the bucket
// is waited for, too.
TEST(Rng, RNG01_ARateIsKeptAndNothingIsLost) {
  Bench bench(4 * FakeRam::MIB, RngRate{40960, 4096, 0, 0});
  timespec began, ended;
  clock_gettime(CLOCK_MONOTONIC, &began);
  for (int i = 0; i < 4; i++)
    bench.driver.add({writable(FakeRam::MIB + i * 4096, 4096)});
  for (int i = 0; i < 4; i++)
    EXPECT_EQ(bench.device.waitForUsed(0, bench.driver).written, 4096);
  clock_gettime(CLOCK_MONOTONIC, &ended);
  double seconds = ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9;
  // Two pass at once, the bucket's and one on credit; a tenth of a second for each of the others.
  EXPECT_GE(seconds, 0.19);
}

TEST(Rng, RNG01_ADriverThatComesAnewFindsNoFullBucket) {
  Bench bench(4 * FakeRam::MIB, RngRate{0, 0, 1, 1});
  bench.driver.add({writable(FakeRam::MIB, 64)});
  bench.driver.add({writable(FakeRam::MIB, 64)});
  bench.device.waitForUsed(0, bench.driver);
  bench.device.waitForUsed(0, bench.driver);
  bench.device.reset();
  FakeDriver again(bench.ram, 8);
  again.add({writable(FakeRam::MIB, 64)});
  bench.device.activate(FEATURES, {&again});
  bench.device.settle();
  EXPECT_EQ(again.usedIndex(), 0);
}

TEST(Rng, AResetWhileALimitIsWaitedForAnswersAtOnce) {
  Bench bench(4 * FakeRam::MIB, RngRate{1, 1, 0, 0});
  bench.driver.add({writable(FakeRam::MIB, 4096)});
  bench.driver.add({writable(FakeRam::MIB, 4096)});
  bench.device.waitForUsed(0, bench.driver);
  bench.device.kick(0);
  bench.device.reset();
  EXPECT_EQ(bench.driver.usedIndex(), 1);
}

TEST(Rng, ARateThatCannotBeIsRefused) {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  auto refused = kj::runCatchingExceptions([&] {
    RngEngine engine(io.unixEventPort, RngRate{100, 0, 0, 0});
  });
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(refused).getDescription().cStr()).find("TRP-rng-001"),
            std::string::npos);
}

TEST(Rng, BrokenRingAsksForAResetAndWorksAfterIt) {
  Bench bench;
  bench.driver.makeAvailable(0xffff);
  bench.device.kick(0);
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
  bench.device.kick(0);
  bench.device.settle();
  EXPECT_EQ(bench.device.host.resetsAsked, 1);
  bench.device.reset();

  FakeDriver again(bench.ram, 8);
  bench.device.activate(FEATURES, {&again});
  again.add({writable(0x30000, 8)});
  EXPECT_EQ(bench.device.waitForUsed(0, again).written, 8);
}

TEST(Rng, RST04_KicksWhileInactiveTouchNothing) {
  Bench bench;
  bench.device.reset();
  bench.driver.add({writable(0x30000, 64)});
  bench.device.kick(0);
  bench.device.settle();
  EXPECT_EQ(bench.driver.usedIndex(), 0);
  EXPECT_EQ(poisonIn(bench.ram.bytes(0x30000, 64)), 64);
}

TEST(Rng, ActivateWithoutItsQueueIsHarmless) {
  Bench bench;
  bench.device.reset();
  bench.device.activate(FEATURES, {});
  bench.device.kick(0);
  bench.device.settle();
  bench.device.reset();
}

// A driver that notifies for nothing costs a look at the ring each time, no more.
TEST(Rng, VQ13_NotificationStorm) {
  Bench bench;
  for (int i = 0; i < 100000; i++)
    bench.device.kick(0);
  bench.driver.add({writable(0x30000, 64)});
  EXPECT_EQ(bench.device.waitForUsed(0, bench.driver).written, 64);
}

}  // namespace
}  // namespace troupe::rng
