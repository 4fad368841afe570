#include "vmm/supervise/deaths.h"

#include <gtest/gtest.h>

#include <vector>

namespace troupe {
namespace {

using Fault = Deaths::Fault;
using sandbox::ProfileRestart;

// An actor, and a clock that stands still but for what a test says.
struct Actor {
  // Whether it is replaced.
  bool dies(Fault fault = Fault::OWN) { return deaths.note(now, policy, fault); }
  void lives(kj::Duration time) { now += time; }
  int64_t pauseMs() const { return deaths.pause() / kj::MILLISECONDS; }

  // Replaced as often as anybody likes, unless a test says otherwise.
  ProfileRestart policy{true, 0, 0, 0};
  kj::TimePoint now = kj::origin<kj::TimePoint>() + 1 * kj::HOURS;
  Deaths deaths;
};

TEST(Deaths, SoManyWithinSoManySecondsAreReplacedAndNoMore) {
  for (auto fault : {Fault::OWN, Fault::NOBODYS}) {
    Actor actor;
    actor.policy = {true, 3, 60, 0};
    for (int i = 0; i < 3; i++) {
      EXPECT_TRUE(actor.dies(fault));
      actor.lives(19 * kj::SECONDS);
    }
    EXPECT_FALSE(actor.deaths.isOneMoreAllowed(actor.now, actor.policy));
    EXPECT_FALSE(actor.dies(fault));
  }
}

TEST(Deaths, OneThatIsLongPastDoesNotCount) {
  Actor actor;
  actor.policy = {true, 3, 60, 0};
  for (int i = 0; i < 100; i++) {
    EXPECT_TRUE(actor.dies(Fault::NOBODYS)) << i;
    actor.lives(20 * kj::SECONDS);
  }
  // The first of the last three was a minute ago, to the nanosecond.
  EXPECT_FALSE(actor.deaths.isOneMoreAllowed(actor.now - 1 * kj::NANOSECONDS, actor.policy));
  EXPECT_TRUE(actor.deaths.isOneMoreAllowed(actor.now, actor.policy));
}

TEST(Deaths, OneThatIsNotReplacedIsNotCounted) {
  Actor actor;
  actor.policy = {true, 1, 60, 0};
  EXPECT_TRUE(actor.dies());
  actor.lives(59 * kj::SECONDS);
  EXPECT_FALSE(actor.dies());
  actor.lives(1 * kj::SECONDS);
  EXPECT_TRUE(actor.dies());
}

TEST(Deaths, WithoutALimitAnyNumberIsReplaced) {
  Actor actor;
  for (int i = 0; i < 100000; i++)
    ASSERT_TRUE(actor.dies(Fault::NOBODYS));
}

TEST(Deaths, WhoIsNeverReplacedIsNotTheFirstTimeEither) {
  Actor actor;
  actor.policy = {false, 0, 0, 0};
  EXPECT_FALSE(actor.deaths.isOneMoreAllowed(actor.now, actor.policy));
  EXPECT_FALSE(actor.dies());
}

TEST(Deaths, ThoseOfItsOwnFollowOneAnotherAtGrowingIntervals) {
  Actor actor;
  std::vector<int64_t> pauses;
  for (int i = 0; i < 12; i++) {
    actor.dies();
    pauses.push_back(actor.pauseMs());
    actor.lives(actor.deaths.pause() + 5 * kj::SECONDS);
  }
  EXPECT_EQ(pauses,
            (std::vector<int64_t>{0, 10, 20, 40, 80, 160, 320, 640, 1280, 1280, 1280, 1280}));
}

TEST(Deaths, OneLongAfterTheOneBeforeIsTheFirstAgain) {
  Actor actor;
  for (int i = 0; i < 3; i++)
    actor.dies();
  EXPECT_EQ(actor.pauseMs(), 20);
  actor.lives(10 * kj::SECONDS - 1 * kj::NANOSECONDS);
  actor.dies();
  EXPECT_EQ(actor.pauseMs(), 40);
  actor.lives(10 * kj::SECONDS);
  actor.dies();
  EXPECT_EQ(actor.pauseMs(), 0);
}

TEST(Deaths, OneThatIsNobodysFaultIsFollowedAtOnceAndEndsTheRow) {
  Actor actor;
  for (int i = 0; i < 5; i++)
    actor.dies();
  EXPECT_GT(actor.pauseMs(), 0);
  actor.dies(Fault::NOBODYS);
  EXPECT_EQ(actor.pauseMs(), 0);
  actor.dies();
  EXPECT_EQ(actor.pauseMs(), 0);
}

TEST(Deaths, TheThirdOfItsOwnWithinTenSecondsIsKnownAsThat) {
  Actor actor;
  for (bool isThird : {false, false, true, true}) {
    actor.dies();
    EXPECT_EQ(actor.deaths.isThirdOwn(), isThird);
  }
  actor.dies(Fault::NOBODYS);
  EXPECT_FALSE(actor.deaths.isThirdOwn());
  actor.lives(10 * kj::SECONDS);
  actor.dies();
  EXPECT_FALSE(actor.deaths.isThirdOwn());
}

TEST(Deaths, NobodysFaultBetweenThemChangesNothingAboutTheThird) {
  Actor actor;
  actor.dies();
  actor.dies(Fault::NOBODYS);
  actor.dies();
  actor.dies(Fault::NOBODYS);
  EXPECT_FALSE(actor.deaths.isThirdOwn());
  actor.dies();
  EXPECT_TRUE(actor.deaths.isThirdOwn());
}

TEST(Backoff, TheFirstFailureCanBeFollowedByAPauseAsWell) {
  Backoff backoff({0, 1 * kj::SECONDS, 6, 120 * kj::SECONDS});
  auto now = kj::origin<kj::TimePoint>();
  std::vector<int64_t> pauses;
  for (int i = 0; i < 9; i++) {
    auto pause = backoff.failed(now);
    pauses.push_back(pause / kj::SECONDS);
    now += pause + 1 * kj::SECONDS;
  }
  EXPECT_EQ(pauses, (std::vector<int64_t>{1, 2, 4, 8, 16, 32, 64, 64, 64}));
  backoff.forget();
  EXPECT_EQ(backoff.failed(now) / kj::SECONDS, 1);
}

}  // namespace
}  // namespace troupe
