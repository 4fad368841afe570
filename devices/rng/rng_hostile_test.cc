// Drivers that break the rules, against troupe-rng in its jail; it stands for the ring of every
// device. virtqueue_hostile_test.cc has each case by itself.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "devices/rng/rng_profile.h"
#include "devices/virtio/testing/process_bench.h"
#include "devices/virtio/wire.h"

namespace troupe::rng {
namespace {

using virtio::Descriptor;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::ProcessBench;
using virtio::testing::writable;

constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
constexpr uint16_t QUEUE_SIZE = 8;
constexpr uint16_t NEXT = virtio::DESC_F_NEXT;
constexpr uint16_t WRITE = virtio::DESC_F_WRITE;
constexpr uint16_t INDIRECT = virtio::DESC_F_INDIRECT;

struct Bench {
  Bench() { device.attach(); }

  // A driver that keeps the rules is served.
  void expectWell() {
    FakeDriver driver(ram, QUEUE_SIZE);
    device.activate(FEATURES, {&driver});
    driver.add({writable(0x30000, 64)});
    EXPECT_EQ(device.waitForUsed(0, driver).written, 64);
    device.reset();
  }

  FakeRam ram;
  ProcessBench device{ram, RNG_PROFILE, "troupe-rng", /*queueCount=*/1};
};

struct Case {
  const char* name;
  std::vector<Descriptor> table;  // the head is descriptor 0
};

TEST(RngHostile, VQ02_VQ03_VQ05_VQ08_BrokenChainsNeedAResetWhichHeals) {
  const uint64_t end = 4 * FakeRam::MIB;
  const std::vector<Case> cases = {
      {"VQ02 a loop of one", {{0x20000, 8, NEXT | WRITE, 0}}},
      {"VQ02 a loop of two", {{0x20000, 8, NEXT | WRITE, 1}, {0x20000, 8, NEXT | WRITE, 0}}},
      {"VQ02 a loop of nothing", {{0x20000, 0, NEXT | WRITE, 0}}},
      {"VQ03 next behind the table", {{0x20000, 8, NEXT | WRITE, QUEUE_SIZE}}},
      {"VQ03 readable after writable", {{0x20000, 8, NEXT | WRITE, 1}, {0x20000, 8, 0, 0}}},
      {"VQ05 the longest length", {{0x20000, UINT32_MAX, WRITE, 0}}},
      {"VQ05 over the end", {{end - 8, 9, WRITE, 0}}},
      {"VQ05 behind the end", {{end, 1, WRITE, 0}}},
      {"VQ05 address and length overflow", {{UINT64_MAX - 3, 8, WRITE, 0}}},
      {"VQ05 the last address", {{UINT64_MAX, 1, WRITE, 0}}},
      {"VQ08 a table of no entries", {{0x20000, 0, INDIRECT, 0}}},
      {"VQ08 a table of half an entry", {{0x20000, 24, INDIRECT, 0}}},
      {"VQ08 a table longer than the queue", {{0x20000, 16 * 9, INDIRECT, 0}}},
      {"VQ08 a table with a next", {{0x20000, 16, INDIRECT | NEXT, 1}}},
      {"VQ08 a table outside of RAM", {{end - 8, 16, INDIRECT, 0}}},
  };
  Bench bench;
  uint32_t asked = 0;
  for (const Case& item : cases) {
    FakeDriver driver(bench.ram, QUEUE_SIZE);
    bench.device.activate(FEATURES, {&driver});
    for (uint16_t i = 0; i < item.table.size(); i++)
      driver.writeDescriptor(i, item.table[i]);
    driver.makeAvailable(0);
    bench.device.kick(0);
    ++asked;
    bench.device.waitUntil([&] { return bench.device.host.resetsAsked == asked; });
    EXPECT_EQ(driver.usedIndex(), 0) << item.name;
    bench.device.reset();
    bench.expectWell();
  }
}

TEST(RngHostile, VQ01_RingsThatCannotBeNeedAResetWhichHeals) {
  Bench bench;
  FakeDriver driver(bench.ram, 16);  // above the 8 the device described
  bench.device.activate(FEATURES, {&driver});
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
  bench.device.reset();
  bench.expectWell();
}

// A second vCPU writes random words all over the ring, the indices included, while requests are
// served and the device is reset and started.
TEST(RngHostile, TOC02_RacingWriterOfTheWholeRingHarmsNothing) {
  Bench bench;
  FakeDriver driver(bench.ram, QUEUE_SIZE);
  std::atomic<bool> over{false};
  std::thread vcpu([&] {
    std::mt19937_64 random(1);
    while (!over) {
      uint16_t flags = random() % 8;
      uint64_t address = random() % 2 ? random() : random() % (5 * FakeRam::MIB);
      driver.writeDescriptor(random() % QUEUE_SIZE,
                             {address, uint32_t(random() % 5 ? random() % 256 : random()), flags,
                              uint16_t(random() % (QUEUE_SIZE + 1))});
      driver.writeAvailable(random() % QUEUE_SIZE, random() % (QUEUE_SIZE + 1));
      driver.writeAvailableIndex(random() % 4 ? driver.usedIndex() + random() % QUEUE_SIZE
                                              : random());
      driver.writeUsedEvent(random());
    }
  });
  {
    KJ_DEFER({
      over = true;
      vcpu.join();
    });
    for (int round = 0; round < 300; round++) {
      bench.device.activate(FEATURES, {&driver});
      for (int i = 0; i < 20; i++)
        bench.device.kick(0);
      bench.device.describe();
      bench.device.reset();
    }
  }
  bench.expectWell();
}

}  // namespace
}  // namespace troupe::rng
