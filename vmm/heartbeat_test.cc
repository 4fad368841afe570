#include "vmm/heartbeat.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

namespace troupe {
namespace {

using Beats = virtio::VitalSigns::Beats;

// A process whose threads do what a test says, on a clock of its own.
struct Process {
  Process()
      : heartbeat([this]() {
          kj::Vector<ThreadLook> threads;
          threads.add(ThreadLook{1, kj::str("troupe-blk"), state, cpu});
          threads.add(ThreadLook{2, kj::str("blk-q0"), 'R', cpuOfFirst});
          threads.add(ThreadLook{3, kj::str("blk-q1"), 'R', cpuOfSecond});
          looks++;
          return threads;
        }) {
    EXPECT_EQ(look(), "");
    now += Heartbeat::LOOK;
    beat();
    EXPECT_EQ(look(), "");
  }

  void beat() {
    beats.loop++;
    beats.engine++;
    beats.stuckThread = 0;
  }
  void beatWithAStuckThread(uint64_t index) {
    beats.loop++;
    beats.stuckThread = index + 1;
  }
  std::string look() {
    KJ_IF_MAYBE (why, heartbeat.look(now, beats)) {
      return why->cStr();
    }
    return "";
  }
  // As the supervisor looks. How long until it was known as hung; -1: not within ten seconds.
  int64_t untilHung(kj::Function<void(kj::Duration)> passes) {
    auto begun = now;
    while (now - begun < 10 * kj::SECONDS) {
      auto pause = heartbeat.isSuspect() ? Heartbeat::SOON : Heartbeat::LOOK;
      now += pause;
      passes(pause);
      if (look() != "") return (now - begun) / kj::MILLISECONDS;
    }
    return -1;
  }

  kj::TimePoint now = kj::origin<kj::TimePoint>() + 1 * kj::HOURS;
  char state = 'S';
  kj::Duration cpu = 0 * kj::SECONDS;
  kj::Duration cpuOfFirst = 0 * kj::SECONDS;
  kj::Duration cpuOfSecond = 0 * kj::SECONDS;
  Beats beats = {7, 7, 0};
  int looks = 0;
  Heartbeat heartbeat;
};

TEST(Heartbeat, OneThatBeatsIsNeverLookedAtFurther) {
  Process process;
  EXPECT_EQ(process.untilHung([&](kj::Duration) { process.beat(); }), -1);
  EXPECT_EQ(process.looks, 0);
}

TEST(Heartbeat, OneThatIsStoppedIsHungWithinHalfASecond) {
  for (char state : {'T', 't'}) {
    Process process;
    process.state = state;
    auto ms = process.untilHung([](kj::Duration) {});
    EXPECT_GT(ms, 0);
    EXPECT_LE(ms + Heartbeat::LOOK / kj::MILLISECONDS, 500);
  }
}

TEST(Heartbeat, AnEndlessLoopIsHungWithinHalfASecond) {
  Process process;
  process.state = 'R';
  auto ms = process.untilHung([&](kj::Duration pause) { process.cpu += pause; });
  EXPECT_GT(ms, 0);
  EXPECT_LE(ms + Heartbeat::LOOK / kj::MILLISECONDS, 500);
}

TEST(Heartbeat, OneThatSleepsThroughItsTimerIsHungWithinHalfASecond) {
  Process process;
  auto ms = process.untilHung([](kj::Duration) {});
  EXPECT_GT(ms, 0);
  EXPECT_LE(ms + Heartbeat::LOOK / kj::MILLISECONDS, 500);
}

TEST(Heartbeat, OneWithoutACpuIsNotHung) {
  Process process;
  process.state = 'R';
  EXPECT_EQ(process.untilHung([](kj::Duration) {}), -1);
}

TEST(Heartbeat, OneThatWaitsForADiskIsNotHung) {
  Process process;
  process.state = 'D';
  EXPECT_EQ(process.untilHung([](kj::Duration) {}), -1);
}

TEST(Heartbeat, OneThatIsStoppedForAMomentIsNotHung) {
  Process process;
  process.state = 't';
  process.now += Heartbeat::LOOK;
  EXPECT_EQ(process.look(), "");
  EXPECT_TRUE(process.heartbeat.isSuspect());
  process.state = 'R';
  process.beat();
  process.now += Heartbeat::SOON;
  EXPECT_EQ(process.look(), "");
  EXPECT_FALSE(process.heartbeat.isSuspect());
}

TEST(Heartbeat, OneThatIsStoppedAfterItCameUnderSuspicionIsHungToo) {
  Process process;
  process.state = 'R';
  process.now += Heartbeat::LOOK;
  EXPECT_EQ(process.look(), "");
  process.state = 'T';
  EXPECT_GT(process.untilHung([](kj::Duration) {}), 0);
}

TEST(Heartbeat, AThreadInAnEndlessLoopMakesItHung) {
  Process process;
  auto ms = process.untilHung([&](kj::Duration pause) {
    process.beatWithAStuckThread(0);
    process.cpuOfFirst += pause;
  });
  EXPECT_GT(ms, 0);
  EXPECT_LE(ms + Heartbeat::LOOK / kj::MILLISECONDS, 500);
}

TEST(Heartbeat, AThreadThatWaitsBesideABusyOneDoesNot) {
  Process process;
  auto ms = process.untilHung([&](kj::Duration pause) {
    process.beatWithAStuckThread(0);
    process.cpuOfSecond += pause;
  });
  EXPECT_EQ(ms, -1);
}

TEST(Heartbeat, WhatWasSeenBeforeAPauseDoesNotCount) {
  Process process;
  process.state = 'T';
  process.now += Heartbeat::LOOK;
  EXPECT_EQ(process.look(), "");
  process.heartbeat.forget();
  process.now += 1 * kj::HOURS;
  EXPECT_EQ(process.look(), "");
  EXPECT_FALSE(process.heartbeat.isSuspect());
}

TEST(ThreadLook, ReadsALineOfTheKernel) {
  auto found =
      parseThread("42 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 19 20 21 22 23\n");
  ASSERT_TRUE(found != nullptr);
  auto& thread = KJ_ASSERT_NONNULL(found);
  EXPECT_EQ(thread.id, 42);
  EXPECT_EQ(thread.name, "a) b (c");
  EXPECT_EQ(thread.state, 'R');
  EXPECT_EQ(thread.cpuTime / kj::MILLISECONDS, 3000);
  EXPECT_TRUE(parseThread("") == nullptr);
  EXPECT_TRUE(parseThread("1 )( R") == nullptr);
  EXPECT_TRUE(parseThread("1 (x) R 1 2") == nullptr);
}

TEST(ThreadLook, SeesThisProcess) {
  auto threads = lookAtThreads(getpid());
  ASSERT_GT(threads.size(), 0);
  EXPECT_EQ(threads[0].id, getpid());
  EXPECT_FALSE(isStopped(getpid()));
}

}  // namespace
}  // namespace troupe
