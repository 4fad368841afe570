// Drivers that break the rules, against troupe-balloon in its jail. rng_hostile_test.cc has more
// for the ring of every device.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <atomic>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "devices/balloon/testing/balloon_bench.h"

namespace troupe::balloon {
namespace {

using virtio::Descriptor;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint16_t NEXT = virtio::DESC_F_NEXT;
constexpr uint16_t WRITE = virtio::DESC_F_WRITE;
constexpr uint16_t INDIRECT = virtio::DESC_F_INDIRECT;
constexpr uint64_t RAM_BYTES = 64 * MIB;

struct Bench {
  Bench() { device.attachReadOnly(); }

  // A driver that keeps the rules is served.
  void expectWell() {
    FakeRam& memory = ram;
    BalloonDriver driver(memory);
    driver.activate(device);
    for (uint16_t queue : {INFLATE, DEFLATE}) {
      driver[queue].add({driver.pages({1024})});
      device.waitForUsed(queue, driver[queue]);
    }
    driver[REPORT].add({writable(8 * MIB, 4096)});
    device.waitForUsed(REPORT, driver[REPORT]);
    device.reset();
  }
  // Every range that was ever asked for is RAM, whole pages, and in order.
  void expectSoundRanges() {
    for (auto& call : device.host.givenBack) {
      uint64_t end = 0;
      uint64_t bytes = 0;
      ASSERT_LE(call.size(), 2048u);
      for (auto& range : call) {
        ASSERT_EQ(range.guestAddress % 4096, 0u);
        ASSERT_EQ(range.size % 4096, 0u);
        ASSERT_GE(range.guestAddress, end);
        ASSERT_LE(range.guestAddress + range.size, RAM_BYTES);
        end = range.guestAddress + range.size;
        bytes += range.size;
      }
      ASSERT_LE(bytes, 64 * MIB);
    }
  }
  size_t residentKib() {
    std::ifstream status("/proc/" + std::to_string(device.child().pid()) + "/status");
    for (std::string line; std::getline(status, line);)
      if (line.rfind("VmData:", 0) == 0) return std::stoul(line.substr(7));
    return 0;
  }

  FakeRam ram{RAM_BYTES};
  JailedBalloon device{ram};
};

struct Case {
  const char* name;
  std::vector<Descriptor> table;  // the head is descriptor 0
};

TEST(BalloonHostile, VQ02_VQ03_VQ05_VQ08_BrokenChainsNeedAResetWhichHeals) {
  const std::vector<Case> cases = {
      {"VQ02 a loop of one", {{0x20000, 8, NEXT, 0}}},
      {"VQ02 a loop of nothing", {{0x20000, 0, NEXT, 0}}},
      {"VQ03 next behind the table", {{0x20000, 8, NEXT, QUEUE_SIZE}}},
      {"VQ03 readable after writable", {{0x20000, 8, NEXT | WRITE, 1}, {0x20000, 8, 0, 0}}},
      {"VQ05 the longest length", {{0x20000, UINT32_MAX, 0, 0}}},
      {"VQ05 over the end", {{RAM_BYTES - 8, 9, WRITE, 0}}},
      {"VQ05 behind the end", {{RAM_BYTES, 1, 0, 0}}},
      {"VQ05 address and length overflow", {{UINT64_MAX - 3, 8, WRITE, 0}}},
      {"VQ08 a table of half an entry", {{0x20000, 24, INDIRECT, 0}}},
      {"VQ08 a table longer than the queue", {{0x20000, 16 * (QUEUE_SIZE + 1), INDIRECT, 0}}},
      {"VQ08 a table outside of RAM", {{RAM_BYTES - 8, 16, INDIRECT, 0}}},
  };
  Bench bench;
  uint32_t asked = 0;
  for (const Case& item : cases) {
    for (uint16_t queue : {INFLATE, DEFLATE, STATISTICS, HINT, REPORT}) {
      BalloonDriver driver(bench.ram);
      driver.activate(bench.device);
      for (uint16_t i = 0; i < item.table.size(); i++)
        driver[queue].writeDescriptor(i, item.table[i]);
      driver[queue].makeAvailable(0);
      bench.device.kick(queue);
      ++asked;
      bench.device.waitUntil([&] { return bench.device.host.resetsAsked == asked; });
      EXPECT_EQ(driver[queue].usedIndex(), 0) << item.name << ", queue " << queue;
      bench.device.reset();
    }
  }
  bench.expectWell();
}

TEST(BalloonHostile, VQ01_RingsThatCannotBeNeedAResetWhichHeals) {
  Bench bench;
  FakeDriver driver(bench.ram, 256, RING);  // above the 128 the device described
  bench.device.activate(FEATURES, {&driver, nullptr, nullptr, nullptr, nullptr});
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
  bench.device.reset();
  bench.expectWell();
}

// Page numbers of every kind, from a driver that names its own rings as free pages, too.
TEST(BalloonHostile, BAL01_AnyPageNumbersAreHarmless) {
  Bench bench;
  std::mt19937 random(1);
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  for (int round = 0; round < 50; round++) {
    std::vector<uint32_t> numbers;
    for (int i = 0; i < 3000; i++) {
      uint32_t kinds[] = {uint32_t(random()), uint32_t(1024 + random() % 20000), 0xe0000, 0xfee00,
                          UINT32_MAX,         uint32_t(RAM_BYTES / 4096),        5000};
      numbers.push_back(kinds[random() % 7]);
    }
    driver[INFLATE].add({driver.pages(numbers)});
    bench.device.waitForUsed(INFLATE, driver[INFLATE]);
  }
  bench.expectSoundRanges();
  bench.device.reset();
  bench.expectWell();
}

TEST(BalloonHostile, BAL01_FreePagesOfAnyShapeAreHarmless) {
  Bench bench;
  std::mt19937 random(2);
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  for (int round = 0; round < 200; round++) {
    uint64_t begin = 4 * MIB + random() % (32 * MIB);
    std::vector<Buffer> buffers;
    for (unsigned i = 0; i < 1 + random() % 32; i++) {
      uint32_t size = random() % 3 ? random() % 20000 : random() % (24 * MIB);
      uint64_t address = random() % 2 ? begin : begin + random() % 65536;
      buffers.push_back(writable(address, size));
    }
    driver[REPORT].addIndirect(kj::arrayPtr(buffers.data(), buffers.size()));
    bench.device.waitForUsed(REPORT, driver[REPORT]);
  }
  bench.expectSoundRanges();
  bench.device.reset();
  bench.expectWell();
}

// 4 GiB of page numbers in one chain, an indirect table that names the same pages again and again:
// other queues are served meanwhile, and a reset ends it.
TEST(BalloonHostile, BAL01_AChainOfGigabytesHoldsNobodyUp) {
  Bench bench;
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  std::vector<Buffer> buffers(100, readable(16 * MIB, 40 * MIB));
  driver[INFLATE].addIndirect(kj::arrayPtr(buffers.data(), buffers.size()));
  bench.device.kick(INFLATE);
  for (int i = 0; i < 10; i++) {
    driver[DEFLATE].add({driver.pages({1024})});
    bench.device.waitForUsed(DEFLATE, driver[DEFLATE]);
  }
  bench.device.reset();
  bench.expectWell();
}

TEST(BalloonHostile, BAL02_StatisticsOfAnyLengthAreHarmless) {
  Bench bench;
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  for (uint32_t length :
       {0u, 1u, 9u, 10u, 11u, 639u, 640u, 641u, 650u, 4096u, 1u << 20, 32u << 20}) {
    driver[STATISTICS].add({readable(16 * MIB, length)});
    bench.device.kick(STATISTICS);
    bench.device.settle();
    auto response = bench.device.report();
    EXPECT_EQ(response.getReport().getBalloon().getStatistics().size(),
              length % 10 == 0 ? std::min(length / 10, 64u) : 0u);
    bench.device.waitForUsed(STATISTICS, driver[STATISTICS]);
  }
  bench.device.reset();
  bench.expectWell();
}

TEST(BalloonHostile, VQ11_FailingRequestsLeaveNothingBehind) {
  Bench bench;
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  Buffer outside = driver.pages(std::vector<uint32_t>(16, UINT32_MAX));
  auto run = [&](int count) {
    for (int i = 0; i < count; i += 64) {
      for (int k = 0; k < 64; k++)
        driver[INFLATE].add({outside});
      for (int k = 0; k < 64; k++)
        bench.device.waitForUsed(INFLATE, driver[INFLATE]);
    }
  };
  run(1000);
  size_t before = bench.residentKib();
  run(100000);
  EXPECT_LE(bench.residentKib(), before + 64);
  EXPECT_EQ(bench.device.host.givenBack.size(), 0u);
}

// A second vCPU writes random words all over the rings, the indices included, while requests are
// served and the device is reset and started.
TEST(BalloonHostile, TOC02_RacingWriterOfTheWholeRingHarmsNothing) {
  Bench bench;
  BalloonDriver driver(bench.ram);
  std::atomic<bool> over{false};
  std::thread vcpu([&] {
    std::mt19937_64 random(1);
    while (!over) {
      FakeDriver& ring = driver[random() % QUEUES];
      uint16_t flags = random() % 8;
      uint64_t address = random() % 2 ? random() : 4 * MIB + random() % RAM_BYTES;
      ring.writeDescriptor(random() % QUEUE_SIZE,
                           {address, uint32_t(random() % 5 ? random() % 256 : random()), flags,
                            uint16_t(random() % (QUEUE_SIZE + 1))});
      ring.writeAvailable(random() % QUEUE_SIZE, random() % (QUEUE_SIZE + 1));
      ring.writeAvailableIndex(random() % 4 ? ring.usedIndex() + random() % QUEUE_SIZE : random());
    }
  });
  {
    KJ_DEFER({
      over = true;
      vcpu.join();
    });
    for (int round = 0; round < 100; round++) {
      driver.activate(bench.device);
      for (uint16_t i = 0; i < 20; i++)
        bench.device.kick(i % QUEUES);
      bench.device.balloonHint();
      bench.device.describe();
      bench.device.reset();
    }
  }
  bench.expectSoundRanges();
  bench.expectWell();
}

}  // namespace
}  // namespace troupe::balloon
