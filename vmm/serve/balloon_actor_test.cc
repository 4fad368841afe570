#include "vmm/serve/balloon_actor.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

namespace troupe::realm {
namespace {

using Status = BalloonController::MemStatStatus;

struct Answer {
  capnp::MallocMessageBuilder asked, answered;
  BalloonStatus::Builder status = asked.initRoot<BalloonStatus>();

  BalloonController::GetMemStatsResults::Reader look() {
    auto results = answered.initRoot<BalloonController::GetMemStatsResults>();
    answerStatistics(status, results);
    return results;
  }
};

TEST(BalloonActor, ADriverThatOffersNoStatisticsDoesNotSupportThem) {
  Answer answer;
  EXPECT_EQ(answer.look().getStatus(), Status::NOT_SUPPORTED);
}

TEST(BalloonActor, StatisticsThatHaveNotComeYetAreWaitedFor) {
  Answer answer;
  answer.status.setOffersStatistics(true);
  EXPECT_EQ(answer.look().getStatus(), Status::SHOULD_WAIT);
}

TEST(BalloonActor, StatisticsThatMakeNoSenseAreAnError) {
  Answer answer;
  answer.status.setOffersStatistics(true);
  answer.status.setHasStatistics(true);
  EXPECT_EQ(answer.look().getStatus(), Status::IO);
}

TEST(BalloonActor, StatisticsAreToldByTheirTags) {
  Answer answer;
  answer.status.setOffersStatistics(true);
  answer.status.setHasStatistics(true);
  auto all = answer.status.initStatistics(2);
  all[0].setTag(4);
  all[0].setValue(100);
  all[1].setTag(5);
  all[1].setValue(uint64_t(1) << 40);
  auto told = answer.look();
  EXPECT_EQ(told.getStatus(), Status::OK);
  ASSERT_EQ(told.getMemStats().size(), 2u);
  EXPECT_EQ(told.getMemStats()[0].getTag(), 4u);
  EXPECT_EQ(told.getMemStats()[1].getVal(), uint64_t(1) << 40);
}

}  // namespace
}  // namespace troupe::realm
