#include "vmm/vm/balloon_report.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>

#include "vmm/words/user_error.h"

namespace troupe {
namespace {

constexpr uint64_t MIB = 1 << 20;

std::string refusal(uint64_t guestBytes, uint64_t memoryBytes) {
  KJ_IF_MAYBE (exception,
               kj::runCatchingExceptions([&]() { balloonPages(guestBytes, memoryBytes); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

TEST(BalloonPages, AreWhatTheGuestIsNotLeft) {
  EXPECT_EQ(balloonPages(512 * MIB, 512 * MIB), 0u);
  EXPECT_EQ(balloonPages(384 * MIB, 512 * MIB), 128 * MIB / 4096);
  EXPECT_EQ(balloonPages(16 * MIB, 512 * MIB), 496 * MIB / 4096);
  EXPECT_EQ(balloonPages(4 * MIB, 4 * MIB), 0u);
}

TEST(BalloonPages, ASizeThatCannotBeIsRefused) {
  EXPECT_NE(refusal(513 * MIB, 512 * MIB).find("TRP-bal-002"), std::string::npos);
  EXPECT_NE(refusal(UINT64_MAX, 512 * MIB).find("TRP-bal-002"), std::string::npos);
  EXPECT_NE(refusal(0, 512 * MIB).find("TRP-bal-002"), std::string::npos);
  EXPECT_NE(refusal(16 * MIB - 4096, 512 * MIB).find("TRP-bal-002"), std::string::npos);
  EXPECT_NE(refusal(100 * MIB + 1, 512 * MIB).find("TRP-bal-002"), std::string::npos);
}

TEST(BalloonStatus, HoldsNoMoreThanTheGuestHasWhateverTheDeviceSays) {
  capnp::MallocMessageBuilder message;
  capnp::MallocMessageBuilder answer;
  auto report = message.initRoot<BalloonReport>();
  report.setTargetPages(UINT32_MAX);
  report.setActualPages(UINT32_MAX);
  auto status = answer.initRoot<BalloonStatus>();
  writeBalloonStatus(report, 512 * MIB, status);
  EXPECT_EQ(status.getTargetBytes(), 512 * MIB);
  EXPECT_EQ(status.getActualBytes(), 512 * MIB);
  EXPECT_FALSE(status.getHasDriver());
}

TEST(BalloonStatus, StatisticsHaveNames) {
  capnp::MallocMessageBuilder message;
  capnp::MallocMessageBuilder answer;
  auto report = message.initRoot<BalloonReport>();
  report.setHasStatistics(true);
  report.setFeatures(1ull << 32);
  auto list = report.initStatistics(3);
  list[0].setTag(4);
  list[0].setValue(77);
  list[1].setTag(2);
  list[2].setTag(999);
  auto status = answer.initRoot<BalloonStatus>();
  writeBalloonStatus(report, 512 * MIB, status);
  ASSERT_EQ(status.getStatistics().size(), 3u);
  EXPECT_STREQ(status.getStatistics()[0].getName().cStr(), "free");
  EXPECT_EQ(status.getStatistics()[0].getValue(), 77u);
  EXPECT_TRUE(status.getStatistics()[0].getIsBytes());
  EXPECT_STREQ(status.getStatistics()[1].getName().cStr(), "major-faults");
  EXPECT_FALSE(status.getStatistics()[1].getIsBytes());
  EXPECT_STREQ(status.getStatistics()[2].getName().cStr(), "tag-999");
  EXPECT_TRUE(status.getHasDriver());
}

}  // namespace
}  // namespace troupe
