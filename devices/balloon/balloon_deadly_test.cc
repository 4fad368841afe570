// Requests that the device dies of, with this test as troupe, broker and driver.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>
#include <vector>

#include "devices/balloon/testing/balloon_bench.h"
#include "devices/virtio/testing/deadly_request.h"

namespace troupe::balloon {
namespace {

using virtio::testing::DEADLY_BYTES;
using virtio::testing::FakeHost;

constexpr uint64_t FIRST_PAGE = 4 * MIB / PAGE_BYTES;

struct Fixture {
  void begin(bool isFirst) {
    process = kj::heap<JailedBalloon>(
        ram, std::vector<virtio::testing::HandedFd>{{"journal", 0, kept.fd()}},
        "devices/dying_devices");
    process->attachReadOnly();
    auto request = process->activateRequest(
        FEATURES,
        {&driver[INFLATE], &driver[DEFLATE], &driver[STATISTICS], &driver[HINT], &driver[REPORT]});
    request.setResumed(!isFirst);
    request.setOwnFault(!isFirst);
    if (!isFirst) {
      auto queues = request.getQueues();
      for (size_t i = 0; i < rings.size(); i++)
        queues[i].setReturned(rings[i].next);
      process->host.usedRings = kj::mv(rings);
    }
    // It may die before it answers.
    answer = request.send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
  }
  // Two processes die of what is on its way; another one lives.
  void outliveTwo() {
    for (bool isFirst : {true, false}) {
      begin(isFirst);
      virtio::testing::expectDeath(*process);
      answer = nullptr;
      rings = kj::mv(process->host.usedRings);
      process = nullptr;
    }
    begin(false);
  }
  uint16_t addPage(uint16_t queue, uint64_t page) {
    return driver[queue].add({driver.pages({uint32_t(page)})});
  }
  bool isGivenBack(uint64_t page) {
    for (auto& call : process->host.givenBack) {
      for (auto& range : call) {
        uint64_t address = page * PAGE_BYTES;
        if (range.guestAddress <= address && address < range.guestAddress + range.size) return true;
      }
    }
    return false;
  }

  virtio::testing::KeptFile kept;
  FakeRam ram{16 * MIB};
  BalloonDriver driver{ram};
  kj::Vector<FakeHost::UsedRing> rings;  // as the broker has stored them
  kj::Own<JailedBalloon> process;
  kj::Promise<void> answer = nullptr;
};

// Page numbers, as many as make it deadly.
std::vector<kj::byte> deadlyPages() {
  std::vector<kj::byte> bytes(DEADLY_BYTES);
  for (uint32_t i = 0; i < DEADLY_BYTES / sizeof(uint32_t); i++) {
    uint32_t number = htole32(uint32_t(FIRST_PAGE) + i);
    memcpy(bytes.data() + i * sizeof(number), &number, sizeof(number));
  }
  return bytes;
}

TEST(BalloonDeadly, PagesThatTwoProcessesDiedOfStayWithTheGuestAndArePutAside) {
  Fixture f;
  auto deadly = deadlyPages();
  auto& ring = f.driver[INFLATE];
  ring.add({ring.readableBuffer(kj::arrayPtr(deadly.data(), deadly.size()))});
  f.addPage(INFLATE, FIRST_PAGE + 1000);
  f.outliveTwo();
  for (int i = 0; i < 2; i++)
    EXPECT_EQ(f.process->waitForUsed(INFLATE, ring).written, 0u);
  EXPECT_FALSE(f.isGivenBack(FIRST_PAGE));
  EXPECT_TRUE(f.isGivenBack(FIRST_PAGE + 1000));
  f.kept.expectOne(INFLATE, kj::arrayPtr(deadly.data(), deadly.size()));
}

TEST(BalloonDeadly, ADeflateThatTwoProcessesDiedOfIsAnswered) {
  Fixture f;
  auto deadly = deadlyPages();
  auto& ring = f.driver[DEFLATE];
  ring.add({ring.readableBuffer(kj::arrayPtr(deadly.data(), deadly.size()))});
  f.outliveTwo();
  EXPECT_EQ(f.process->waitForUsed(DEFLATE, ring).written, 0u);
  f.kept.expectOne(DEFLATE, kj::arrayPtr(deadly.data(), deadly.size()));
}

TEST(BalloonDeadly, AReportThatTwoProcessesDiedOfIsAnsweredAndItsPagesStay) {
  Fixture f;
  auto& ring = f.driver[REPORT];
  ring.add({virtio::testing::writable((FIRST_PAGE + 1) * PAGE_BYTES, DEADLY_BYTES)});
  ring.add({virtio::testing::writable((FIRST_PAGE + 2) * PAGE_BYTES, PAGE_BYTES)});
  f.outliveTwo();
  for (int i = 0; i < 2; i++)
    EXPECT_EQ(f.process->waitForUsed(REPORT, ring).written, 0u);
  EXPECT_FALSE(f.isGivenBack(FIRST_PAGE + 1));
  EXPECT_TRUE(f.isGivenBack(FIRST_PAGE + 2));
  f.kept.expectOne(REPORT, nullptr);
}

TEST(BalloonDeadly, StatisticsThatTwoProcessesDiedOfAreAskedForAnew) {
  Fixture f;
  auto deadly = deadlyPages();
  auto& ring = f.driver[STATISTICS];
  ring.add({ring.readableBuffer(kj::arrayPtr(deadly.data(), deadly.size()))});
  f.outliveTwo();
  EXPECT_EQ(f.process->waitForUsed(STATISTICS, ring).written, 0u);
  EXPECT_FALSE(f.process->report().getReport().getBalloon().getHasStatistics());
  f.kept.expectOne(STATISTICS, kj::arrayPtr(deadly.data(), deadly.size()));
}

}  // namespace
}  // namespace troupe::balloon
