#include "devices/balloon/balloon_engine.h"

#include <endian.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>
#include <string>
#include <vector>

#include "devices/balloon/page_batch.h"
#include "devices/virtio/testing/device_bench.h"
#include "devices/virtio/testing/fake_driver.h"

namespace troupe::balloon {
namespace {

using virtio::testing::Buffer;
using virtio::testing::DeviceBench;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint64_t MIB = FakeRam::MIB;
constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | F_STATS_VQ |
                              F_DEFLATE_ON_OOM | F_FREE_PAGE_HINT | F_PAGE_REPORTING;
constexpr virtio::RingFeatures RING{true, false};

enum Queue : uint16_t { INFLATE, DEFLATE, STATISTICS, HINT, REPORT };

struct Bench {
  explicit Bench(uint64_t features = FEATURES, uint64_t ramBytes = 16 * MIB) : ram(ramBytes) {
    device.attach();
    start(features);
  }
  void start(uint64_t features = FEATURES) {
    device.activate(features, {&driver(0), &driver(1), &driver(2), &driver(3), &driver(4)});
  }
  FakeDriver& driver(uint16_t queue) { return drivers[queue]; }

  Buffer pages(std::vector<uint32_t> numbers) {
    for (uint32_t& number : numbers)
      number = htole32(number);
    return driver(0).readableBuffer(kj::arrayPtr(numbers.data(), numbers.size()).asBytes());
  }
  virtio::testing::FakeDriver::Used await(uint16_t queue) {
    return device.waitForUsed(queue, driver(queue));
  }
  // "4096+8192 …" of one call to the broker.
  std::string givenBack(size_t call) {
    std::string text;
    if (call >= device.host.givenBack.size()) return "nothing";
    for (auto& range : device.host.givenBack[call]) {
      if (!text.empty()) text += ' ';
      text += std::to_string(range.guestAddress) + "+" + std::to_string(range.size);
    }
    return text;
  }
  // The field of the configuration space at this offset, as the device changed it last.
  kj::Maybe<uint32_t> told(uint32_t offset) {
    kj::Maybe<uint32_t> last;
    for (auto& change : device.host.configChanges) {
      uint32_t value;
      KJ_REQUIRE(change.data.size() == sizeof(value));
      memcpy(&value, change.data.begin(), sizeof(value));
      if (change.offset == offset) last = le32toh(value);
    }
    return last;
  }
  uint32_t awaitTold(uint32_t offset) {
    device.waitUntil([&] { return told(offset) != nullptr; });
    return KJ_ASSERT_NONNULL(told(offset));
  }
  void write(uint32_t offset, uint32_t value) {
    value = htole32(value);
    device.writeConfig(offset, kj::arrayPtr(&value, 1).asBytes());
  }
  // A buffer of statistics: tag and value, again and again.
  Buffer statistics(const std::vector<std::pair<uint16_t, uint64_t>>& entries, size_t more = 0) {
    std::vector<kj::byte> bytes;
    for (auto& entry : entries) {
      uint16_t tag = htole16(entry.first);
      uint64_t value = htole64(entry.second);
      auto add = [&](const void* data, size_t size) {
        auto begin = static_cast<const kj::byte*>(data);
        bytes.insert(bytes.end(), begin, begin + size);
      };
      add(&tag, sizeof(tag));
      add(&value, sizeof(value));
    }
    bytes.resize(bytes.size() + more, 0x11);
    return driver(STATISTICS).readableBuffer(kj::arrayPtr(bytes.data(), bytes.size()));
  }

  FakeRam ram;
  DeviceBench device{ram, [](kj::AsyncIoContext& io) {
                       return kj::heap<BalloonEngine>(io.unixEventPort, /*hasStatistics=*/true);
                     }};
  FakeDriver drivers[5] = {
      {ram, 128, RING}, {ram, 128, RING}, {ram, 128, RING}, {ram, 128, RING}, {ram, 128, RING}};
};

TEST(Balloon, DescribesItself) {
  Bench bench;
  auto response = bench.device.describe();
  auto info = response.getInfo();
  EXPECT_EQ(info.getDeviceType(), 5);
  EXPECT_EQ(info.getQueueSizes().size(), 5u);
  EXPECT_EQ(info.getConfig().size(), 16u);
  EXPECT_EQ(info.getFeatures() & virtio::F_EVENT_IDX, 0u);  // it cannot write the ring's word
  kj::byte mask[16] = {0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255};
  EXPECT_EQ(memcmp(info.getConfigWriteMask().begin(), mask, 16), 0);
}

TEST(Balloon, WithoutStatisticsOffersNoQueueForThem) {
  FakeRam ram;
  DeviceBench device(ram, [](kj::AsyncIoContext& io) {
    return kj::heap<BalloonEngine>(io.unixEventPort, /*hasStatistics=*/false);
  });
  EXPECT_EQ(device.describe().getInfo().getFeatures() & F_STATS_VQ, 0u);
}

TEST(Balloon, InflatedPagesAreGivenBackBeforeTheirChainIs) {
  Bench bench;
  memset(bench.ram.bytes(MIB, 4 * 4096).begin(), 0x77, 4 * 4096);
  bench.driver(INFLATE).wantInterrupts(true);
  uint16_t head = bench.driver(INFLATE).add({bench.pages({259, 257, 256})});
  auto used = bench.await(INFLATE);
  EXPECT_EQ(used.head, head);
  EXPECT_EQ(used.written, 0u);
  EXPECT_EQ(bench.givenBack(0), "1048576+8192 1060864+4096");
  EXPECT_EQ(bench.ram.bytes(MIB, 1)[0], 0);
  EXPECT_EQ(bench.ram.bytes(MIB + 2 * 4096, 1)[0], 0x77);
  bench.device.waitForInterrupt(INFLATE);
}

TEST(Balloon, ADriverThatWantsNoInterruptGetsNone) {
  Bench bench;
  bench.driver(INFLATE).wantInterrupts(false);
  bench.driver(INFLATE).add({bench.pages({256})});
  bench.await(INFLATE);
  bench.device.settle();
  EXPECT_FALSE(bench.device.interrupted(INFLATE));
}

TEST(Balloon, SeveralChainsAreOneCall) {
  Bench bench;
  for (uint32_t page : {300, 301, 302})
    bench.driver(INFLATE).add({bench.pages({page})});
  for (int i = 0; i < 3; i++)
    bench.await(INFLATE);
  EXPECT_EQ(bench.givenBack(0), "1228800+12288");
  EXPECT_EQ(bench.device.host.givenBack.size(), 1u);
}

TEST(Balloon, DeflatedPagesNeedNothingButAnAnswer) {
  Bench bench;
  bench.driver(DEFLATE).add({bench.pages({256, 257})});
  bench.await(DEFLATE);
  EXPECT_EQ(bench.device.host.givenBack.size(), 0u);
}

TEST(Balloon, TheTargetIsToldToTheDriverThatIsThereAndToTheNext) {
  Bench bench;
  bench.device.balloonTarget(1000);
  EXPECT_EQ(bench.awaitTold(0), 1000u);
  bench.device.reset();
  bench.device.balloonTarget(2000);
  bench.device.settle();
  EXPECT_EQ(bench.told(0), 1000u);
  bench.start();
  bench.device.waitUntil([&] { return KJ_ASSERT_NONNULL(bench.told(0)) == 2000; });
}

TEST(Balloon, ReportsTargetActualAndWhatWasGivenBack) {
  Bench bench;
  bench.device.balloonTarget(1000);
  bench.write(4, 7);
  bench.driver(INFLATE).add({bench.pages({256, 257})});
  bench.await(INFLATE);
  bench.driver(REPORT).add({writable(2 * MIB, 8192)});
  bench.await(REPORT);
  auto response = bench.device.report();
  auto report = response.getReport().getBalloon();
  EXPECT_EQ(report.getTargetPages(), 1000u);
  EXPECT_EQ(report.getActualPages(), 7u);
  EXPECT_EQ(report.getFeatures(), FEATURES);
  EXPECT_EQ(report.getGivenBackBytes(), 4 * 4096u);
  EXPECT_EQ(report.getFreePageBytes(), 2 * 4096u);
  EXPECT_FALSE(report.getHasStatistics());
}

TEST(Balloon, WithoutADriverTheBalloonIsEmpty) {
  Bench bench;
  bench.write(4, 7);
  bench.device.reset();
  auto response = bench.device.report();
  EXPECT_EQ(response.getReport().getBalloon().getActualPages(), 0u);
  EXPECT_EQ(response.getReport().getBalloon().getFeatures(), 0u);
}

TEST(Balloon, ReportedPagesAreGivenBack) {
  Bench bench;
  bench.driver(REPORT).addIndirect({writable(4 * MIB, 2 * MIB), writable(8 * MIB, MIB)});
  EXPECT_EQ(bench.await(REPORT).written, 0u);
  EXPECT_EQ(bench.givenBack(0), "4194304+2097152 8388608+1048576");
}

// §5.5.6.6.1: pages that the guest fills with a pattern are to keep it.
TEST(Balloon, ReportedPagesOfAGuestThatPoisonsThemStayAsTheyAre) {
  Bench bench(FEATURES | F_PAGE_POISON);
  bench.write(12, 0xaaaaaaaa);
  bench.driver(REPORT).add({writable(4 * MIB, MIB)});
  bench.await(REPORT);
  EXPECT_EQ(bench.device.host.givenBack.size(), 0u);
  bench.write(12, 0);
  bench.driver(REPORT).add({writable(4 * MIB, MIB)});
  bench.await(REPORT);
  EXPECT_EQ(bench.givenBack(0), "4194304+1048576");
}

TEST(Balloon, HintedPagesCountFromTheBeginningOfTheRoundToItsEnd) {
  Bench bench;
  auto command = [&](uint32_t id) {
    bench.driver(HINT).add({bench.pages({id})});
    bench.await(HINT);
  };
  auto hint = [&](uint64_t address) {
    bench.driver(HINT).add({writable(address, 4096)});
    bench.await(HINT);
  };
  bench.device.balloonHint();
  uint32_t round = bench.awaitTold(8);
  EXPECT_GE(round, FIRST_CMD_ID);
  hint(MIB);  // too early
  command(round + 1);
  hint(2 * MIB);  // of another round
  command(round);
  hint(3 * MIB);
  EXPECT_EQ(KJ_ASSERT_NONNULL(bench.told(8)), round);
  command(CMD_ID_STOP);
  bench.device.waitUntil([&] { return KJ_ASSERT_NONNULL(bench.told(8)) == CMD_ID_DONE; });
  hint(4 * MIB);  // too late
  EXPECT_EQ(bench.givenBack(0), std::to_string(3 * MIB) + "+4096");
  EXPECT_EQ(bench.device.host.givenBack.size(), 1u);

  bench.device.balloonHint();
  bench.device.waitUntil([&] { return KJ_ASSERT_NONNULL(bench.told(8)) == round + 1; });
}

TEST(Balloon, AHintIsAskedOfNobodyWhoCannotGiveIt) {
  Bench bench(FEATURES & ~F_FREE_PAGE_HINT);
  bench.device.balloonHint();
  bench.device.settle();
  EXPECT_TRUE(bench.told(8) == nullptr);
}

TEST(Balloon, StatisticsAreFreshWhenAskedFor) {
  Bench bench;
  bench.driver(STATISTICS).add({bench.statistics({{4, 100}, {5, 200}})});
  bench.device.kick(STATISTICS);
  // The driver answers as soon as it has its buffer back.
  auto asked = bench.device.device().reportRequest().send();
  bench.await(STATISTICS);
  bench.driver(STATISTICS).add({bench.statistics({{4, 50}})});
  bench.device.kick(STATISTICS);
  auto response =
      bench.device.await(kj::Promise<capnp::Response<Device::ReportResults>>(kj::mv(asked)));
  auto report = response.getReport().getBalloon();
  ASSERT_TRUE(report.getHasStatistics());
  // Either what came by itself, or what was asked for: never nothing.
  auto first = report.getStatistics()[0];
  EXPECT_EQ(first.getTag(), 4);
  EXPECT_TRUE(first.getValue() == 50 || first.getValue() == 100);
}

TEST(Balloon, ADriverThatNeverAnswersIsNotWaitedFor) {
  Bench bench;
  bench.driver(STATISTICS).add({bench.statistics({{4, 100}})});
  bench.device.kick(STATISTICS);
  bench.device.settle();
  auto response = bench.device.report();
  EXPECT_EQ(response.getReport().getBalloon().getStatistics()[0].getValue(), 100u);
  response = bench.device.report();
  EXPECT_EQ(response.getReport().getBalloon().getStatistics()[0].getValue(), 100u);
}

TEST(Balloon, AResetWhileStatisticsAreAwaitedAnswersAtOnce) {
  Bench bench;
  auto asked = bench.device.device().reportRequest().send();
  bench.device.reset();
  auto response =
      bench.device.await(kj::Promise<capnp::Response<Device::ReportResults>>(kj::mv(asked)));
  EXPECT_TRUE(response.getReport().isBalloon());
}

TEST(Balloon, BAL02_StatisticsOfAnyLengthAreReadIfTheyAreWhole) {
  Bench bench;
  auto expect = [&](Buffer buffer, size_t count) {
    bench.driver(STATISTICS).add({buffer});
    bench.device.kick(STATISTICS);
    bench.device.settle();
    auto response = bench.device.report();
    EXPECT_EQ(response.getReport().getBalloon().getStatistics().size(), count);
    bench.await(STATISTICS);
  };
  expect(bench.statistics({{1, 2}}, 9), 0);
  expect(bench.statistics({}, 9), 0);
  expect(bench.statistics(std::vector<std::pair<uint16_t, uint64_t>>(64, {7, 8})), 64);
  expect(bench.statistics(std::vector<std::pair<uint16_t, uint64_t>>(65, {7, 8})), 64);
  expect(readable(MIB, 8 * MIB), 0);
  expect(readable(MIB, 8 * MIB / 10 * 10), 64);
  expect(writable(MIB, 4096), 0);
}

TEST(Balloon, BAL02_OfSeveralBuffersOneIsKept) {
  Bench bench;
  for (uint64_t i = 0; i < 100; i++)
    bench.driver(STATISTICS).add({bench.statistics({{4, i}})});
  for (int i = 0; i < 99; i++)
    bench.await(STATISTICS);
  bench.device.settle();
  EXPECT_TRUE(bench.driver(STATISTICS).takeUsed() == nullptr);
  EXPECT_EQ(bench.device.report().getReport().getBalloon().getStatistics()[0].getValue(), 99u);
}

// A gigabyte of page numbers would be a quarter of a million calls. Each turn is one, and in
// between everybody else is served.
TEST(Balloon, BAL01_AnArrayOfPagesWithoutEndIsReadInTurns) {
  Bench bench(FEATURES, 128 * MIB);
  memset(bench.ram.bytes(16 * MIB, 32 * MIB).begin(), 0x01, 32 * MIB);  // page 0x01010101 is no RAM
  std::vector<uint32_t> apart;
  for (uint32_t page = 8192; page < 8192 + 2 * 5000; page += 2)
    apart.push_back(page);
  bench.driver(INFLATE).add({bench.pages(apart), readable(16 * MIB, 4096)});
  bench.await(INFLATE);
  size_t ranges = 0;
  for (auto& call : bench.device.host.givenBack) {
    EXPECT_LE(call.size(), PageBatch::MAX_RANGES);
    ranges += call.size();
  }
  EXPECT_EQ(ranges, 5000u);
  EXPECT_EQ(bench.device.host.givenBack.size(), 3u);
}

TEST(Balloon, BAL01_PagesAlreadyInTheBalloonAndOutsideRamHarmNothing) {
  Bench bench;
  for (int i = 0; i < 3; i++) {
    bench.driver(INFLATE).add({bench.pages({256, 0xe0000, 0xffffffff, 256, 4096})});
    bench.await(INFLATE);
  }
  EXPECT_EQ(bench.givenBack(2), "1048576+4096");
}

TEST(Balloon, OddLengthsAreReadAsFarAsTheyGo) {
  Bench bench;
  Buffer numbers = bench.pages({256, 257});
  bench.driver(INFLATE).add({readable(numbers.address, 7)});
  bench.await(INFLATE);
  EXPECT_EQ(bench.givenBack(0), "1048576+4096");
  bench.driver(INFLATE).add({writable(numbers.address, 8)});
  bench.await(INFLATE);
  EXPECT_EQ(bench.device.host.givenBack.size(), 1u);
}

TEST(Balloon, ReportsOfMoreThanACallMayNameAreGivenBackInTurns) {
  Bench bench(FEATURES, 160 * MIB);
  bench.driver(REPORT).add({writable(16 * MIB, 140 * MIB)});
  bench.await(REPORT);
  EXPECT_EQ(bench.givenBack(0), std::to_string(16 * MIB) + "+" + std::to_string(64 * MIB));
  EXPECT_EQ(bench.givenBack(1), std::to_string(80 * MIB) + "+" + std::to_string(64 * MIB));
  EXPECT_EQ(bench.givenBack(2), std::to_string(144 * MIB) + "+" + std::to_string(12 * MIB));
}

TEST(Balloon, QueuesOfADriverThatCountsOnAreTakenForWhatTheyAre) {
  Bench bench(0);
  bench.device.reset();
  uint64_t features = virtio::F_VERSION_1 | F_PAGE_REPORTING;
  bench.device.activate(features, {&bench.driver(0), &bench.driver(1), &bench.driver(2)});
  bench.driver(2).add({writable(4 * MIB, 4096)});
  bench.await(2);
  EXPECT_EQ(bench.givenBack(0), "4194304+4096");
}

TEST(Balloon, RST01_AResetInTheMidstOfAnEndlessArrayEndsIt) {
  Bench bench(FEATURES, 256 * MIB);
  bench.driver(INFLATE).add({readable(16 * MIB, 128 * MIB)});
  bench.device.kick(INFLATE);
  bench.device.reset();
  size_t calls = bench.device.host.givenBack.size();
  bench.device.settle();
  EXPECT_EQ(bench.device.host.givenBack.size(), calls);
  EXPECT_EQ(bench.driver(INFLATE).usedIndex(), 0);
}

TEST(Balloon, RST04_KicksWhileInactiveTouchNothing) {
  Bench bench;
  bench.device.reset();
  bench.driver(INFLATE).add({bench.pages({256})});
  bench.device.kick(INFLATE);
  bench.device.settle();
  EXPECT_EQ(bench.driver(INFLATE).usedIndex(), 0);
  EXPECT_EQ(bench.device.host.givenBack.size(), 0u);
}

TEST(Balloon, BrokenRingAsksForAResetAndWorksAfterIt) {
  Bench bench;
  bench.driver(DEFLATE).makeAvailable(0xffff);
  bench.device.kick(DEFLATE);
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
  bench.device.reset();
  FakeDriver again(bench.ram, 128, RING);
  bench.device.activate(FEATURES, {nullptr, &again, nullptr, nullptr, nullptr});
  again.add({bench.pages({256})});
  bench.device.waitForUsed(DEFLATE, again);
}

TEST(Balloon, CFG01_TheDriversFieldsAreTakenByteByByteAndNoOthersAre) {
  Bench bench;
  bench.device.balloonTarget(5);
  for (uint32_t offset = 0; offset < 16; offset++) {
    kj::byte value = 1;
    bench.device.writeConfig(offset, kj::arrayPtr(&value, 1));
  }
  auto response = bench.device.report();
  EXPECT_EQ(response.getReport().getBalloon().getTargetPages(), 5u);
  EXPECT_EQ(response.getReport().getBalloon().getActualPages(), 0x01010101u);
}

TEST(Balloon, VQ13_NotificationStorm) {
  Bench bench;
  for (int i = 0; i < 100000; i++)
    bench.device.kick(INFLATE);
  bench.driver(INFLATE).add({bench.pages({256})});
  bench.await(INFLATE);
}

}  // namespace
}  // namespace troupe::balloon
