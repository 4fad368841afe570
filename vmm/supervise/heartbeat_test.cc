#include "vmm/supervise/heartbeat.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace troupe {
namespace {

using virtio::Pulse;
using virtio::VitalSigns;
using State = virtio::Sign::State;

// A process whose threads do what a test says, on a clock of its own.
struct Process final: ProcessLook {
  Process() {
    loop.showIn(signs.word(0));
    first.showIn(signs.word(1));
    second.showIn(signs.word(2));
    EXPECT_EQ(look(), "");
    now += Heartbeat::LOOK;
    turn();
    EXPECT_EQ(look(), "");
  }

  // Its loop wakes up, does something, and waits again.
  void turn() {
    loop.become(State::WORKS);
    uses(30 * kj::MICROSECONDS);
    loop.become(State::WAITS);
  }
  // The main thread does.
  void uses(kj::Duration time) { cpu += time; }

  kj::Maybe<kj::Duration> cpuTime() override {
    clockLooks++;
    return cpu + cpuOfFirst + cpuOfSecond;
  }
  kj::Maybe<ThreadLook> mainThread() override {
    looks++;
    return ThreadLook{1, kj::str("troupe-blk"), state, ticks(cpu)};
  }
  kj::Vector<ThreadLook> threads() override {
    kj::Vector<ThreadLook> threads;
    threads.add(KJ_ASSERT_NONNULL(mainThread()));
    threads.add(ThreadLook{2, kj::str("blk-q0"), stateOfFirst, ticks(cpuOfFirst)});
    threads.add(ThreadLook{3, kj::str("blk-q1"), 'S', ticks(cpuOfSecond)});
    threads.add(ThreadLook{4, kj::str("iou-wrk-12"), 'S', ticks(cpuOfWorker)});
    return threads;
  }
  Freeze freeze() override {
    freezeLooks++;
    return frozen;
  }
  static kj::Duration ticks(kj::Duration time) { return time - time % (10 * kj::MILLISECONDS); }

  std::string look() {
    KJ_IF_MAYBE (why, heartbeat.look(now, signs)) {
      return why->cStr();
    }
    return "";
  }
  // As the supervisor looks. How long until it was known as hung; -1: not within ten seconds.
  int64_t untilHung(kj::Function<void(kj::Duration)> passes) {
    auto begun = now;
    while (now - begun < 10 * kj::SECONDS) {
      auto pause = heartbeat.pause();
      now += pause;
      passes(pause);
      if (look() != "") return (now - begun) / kj::MILLISECONDS;
    }
    return -1;
  }
  // Whatever befalls it, it does so right after a look.
  void expectHungInTime(kj::Function<void(kj::Duration)> passes) {
    auto ms = untilHung(kj::mv(passes));
    EXPECT_GT(ms, 0);
    EXPECT_LE(ms, 450);
  }
  void comesToRest() {
    for (int i = 0; i < 5; i++) {
      now += heartbeat.pause();
      EXPECT_EQ(look(), "");
    }
    EXPECT_EQ(heartbeat.pause(), Heartbeat::AT_REST);
  }

  alignas(64) kj::byte memory[VitalSigns::BYTES] = {};
  VitalSigns signs{memory, 0};
  Pulse loop, first, second;
  kj::TimePoint now = kj::origin<kj::TimePoint>() + 1 * kj::HOURS;
  char state = 'S';
  char stateOfFirst = 'S';
  kj::Duration cpu = 0 * kj::SECONDS;
  kj::Duration cpuOfFirst = 0 * kj::SECONDS;
  kj::Duration cpuOfSecond = 0 * kj::SECONDS;
  kj::Duration cpuOfWorker = 0 * kj::SECONDS;  // the kernel's
  Freeze frozen = Freeze::NONE;
  int looks = 0;
  int freezeLooks = 0;
  int clockLooks = 0;
  Heartbeat heartbeat{*this};
};

TEST(Heartbeat, OneWhoseLoopTurnsIsNeverLookedAtFurther) {
  Process process;
  EXPECT_EQ(process.untilHung([&](kj::Duration) { process.turn(); }), -1);
  EXPECT_EQ(process.looks, 0);
}

TEST(Heartbeat, OneAtRestIsLeftAloneAndHardlyLookedAt) {
  Process process;
  process.comesToRest();
  process.looks = process.clockLooks = 0;
  EXPECT_EQ(process.untilHung([](kj::Duration) {}), -1);
  EXPECT_LE(process.clockLooks, 50);  // in ten seconds
  EXPECT_LE(process.looks, 8);
  EXPECT_LE(process.freezeLooks, 8);
}

TEST(Heartbeat, OneThatIsStoppedIsHungWithinHalfASecond) {
  for (char state : {'T', 't'}) {
    Process process;
    process.state = state;
    process.expectHungInTime([](kj::Duration) {});
  }
}

TEST(Heartbeat, OneThatIsStoppedAtRestIsHungWithinHalfASecond) {
  Process process;
  process.comesToRest();
  process.state = 't';
  process.uses(2 * kj::MICROSECONDS);  // to stop is something it does
  process.expectHungInTime([](kj::Duration) {});
}

TEST(Heartbeat, OneThatIsStoppedAsItComesToRestIsHungToo) {
  Process process;
  process.now += Heartbeat::LOOK;
  process.turn();
  EXPECT_EQ(process.look(), "");
  process.turn();
  process.state = 't';
  process.expectHungInTime([](kj::Duration) {});
}

TEST(Heartbeat, OneThatIsFrozenIsHungWithinHalfASecond) {
  for (auto said : {State::WAITS, State::WORKS}) {
    Process process;
    process.comesToRest();
    process.loop.become(said);
    process.frozen = Freeze::OF_IT_ALONE;
    process.uses(2 * kj::MICROSECONDS);  // on its way there
    process.expectHungInTime([](kj::Duration) {});
  }
}

TEST(Heartbeat, OneThatIsFrozenAsItComesToRestIsHungToo) {
  Process process;
  process.turn();
  process.frozen = Freeze::OF_IT_ALONE;
  process.expectHungInTime([](kj::Duration) {});
}

TEST(Heartbeat, OneThatIsFrozenForAMomentIsNotHung) {
  Process process;
  process.comesToRest();
  process.frozen = Freeze::OF_IT_ALONE;
  process.uses(2 * kj::MICROSECONDS);
  process.now += process.heartbeat.pause();
  EXPECT_EQ(process.look(), "");
  EXPECT_EQ(process.heartbeat.pause(), Heartbeat::SOON);
  process.frozen = Freeze::NONE;
  process.uses(2 * kj::MICROSECONDS);
  EXPECT_EQ(process.untilHung([](kj::Duration) {}), -1);
}

// Whoever froze all of a VM will let it go on.
TEST(Heartbeat, OneThatIsFrozenWithOthersIsNotHungAndGoesOn) {
  for (auto said : {State::WAITS, State::WORKS}) {
    Process process;
    process.comesToRest();
    process.loop.become(said);
    process.frozen = Freeze::OF_OTHERS_TOO;
    process.uses(2 * kj::MICROSECONDS);
    EXPECT_EQ(process.untilHung([](kj::Duration) {}), -1);
    process.frozen = Freeze::NONE;
    process.turn();
    EXPECT_EQ(process.untilHung([&](kj::Duration) { process.turn(); }), -1);
  }
}

// As on a host whose clock of CPU time moves in steps.
TEST(Heartbeat, OneThatIsStoppedWithoutATraceIsHungInTheEnd) {
  Process process;
  process.comesToRest();
  process.state = 'T';
  EXPECT_GT(process.untilHung([](kj::Duration) {}), 0);
}

TEST(Heartbeat, AnEndlessLoopIsHungWithinHalfASecond) {
  Process process;
  process.state = 'R';
  process.loop.become(State::WORKS);
  process.expectHungInTime([&](kj::Duration pause) { process.uses(pause); });
}

TEST(Heartbeat, AnEndlessLoopThatSaysItWaitsIsHungWithinHalfASecond) {
  Process process;
  process.comesToRest();
  process.state = 'R';
  process.expectHungInTime([&](kj::Duration pause) { process.uses(pause); });
}

TEST(Heartbeat, AnEndlessLoopBesideABusyThreadIsHungWithinHalfASecond) {
  Process process;
  process.expectHungInTime([&](kj::Duration pause) {
    process.uses(pause);
    process.cpuOfFirst += pause;
    process.first.beat();
  });
}

TEST(Heartbeat, OneThatSleepsWhereItDoesNotWaitForEventsIsHungWithinHalfASecond) {
  Process process;
  process.comesToRest();
  process.loop.become(State::WORKS);
  process.uses(2 * kj::MICROSECONDS);
  process.expectHungInTime([](kj::Duration) {});
}

// It may hold what the main thread waits for, and have no CPU to go on with.
TEST(Heartbeat, OneThatMayWaitForAnotherThreadHasLonger) {
  for (char other : {'R', 'D'}) {
    Process process;
    process.comesToRest();
    process.loop.become(State::WORKS);
    process.uses(2 * kj::MICROSECONDS);
    process.stateOfFirst = other;
    auto ms = process.untilHung([](kj::Duration) {});
    EXPECT_GE(ms, 2000);
    EXPECT_LE(ms, 3000);
  }
}

TEST(Heartbeat, OneWithoutACpuIsNotHung) {
  for (auto said : {State::WORKS, State::WAITS}) {
    Process process;
    process.state = 'R';
    process.loop.become(said);
    EXPECT_EQ(process.untilHung([](kj::Duration) {}), -1);
  }
}

TEST(Heartbeat, OneThatWaitsForADiskIsNotHung) {
  Process process;
  process.state = 'D';
  process.loop.become(State::WORKS);
  EXPECT_EQ(process.untilHung([](kj::Duration) {}), -1);
}

TEST(Heartbeat, OneThatIsStoppedForAMomentIsNotHung) {
  Process process;
  process.state = 't';
  process.now += Heartbeat::LOOK;
  EXPECT_EQ(process.look(), "");
  EXPECT_EQ(process.heartbeat.pause(), Heartbeat::SOON);
  process.state = 'R';
  process.turn();
  process.now += Heartbeat::SOON;
  EXPECT_EQ(process.look(), "");
  EXPECT_EQ(process.heartbeat.pause(), Heartbeat::LOOK);
}

TEST(Heartbeat, OneThatIsStoppedAfterItCameUnderSuspicionIsHungToo) {
  Process process;
  process.state = 'R';
  process.loop.become(State::WORKS);
  process.now += Heartbeat::LOOK;
  EXPECT_EQ(process.look(), "");
  process.state = 'T';
  EXPECT_GT(process.untilHung([](kj::Duration) {}), 0);
}

TEST(Heartbeat, AThreadInAnEndlessLoopMakesItHung) {
  for (auto said : {State::WORKS, State::WAITS}) {
    Process process;
    process.comesToRest();
    process.first.become(said);
    process.expectHungInTime([&](kj::Duration pause) { process.cpuOfFirst += pause; });
  }
}

TEST(Heartbeat, AThreadInAnEndlessLoopBesideALoopThatTurnsMakesItHung) {
  Process process;
  process.expectHungInTime([&](kj::Duration pause) {
    process.turn();
    process.cpuOfSecond += pause;
  });
}

TEST(Heartbeat, AThreadThatWaitsBesideABusyOneDoesNot) {
  Process process;
  auto ms = process.untilHung([&](kj::Duration pause) {
    process.cpuOfSecond += pause;
    process.second.beat();
  });
  EXPECT_EQ(ms, -1);
}

TEST(Heartbeat, WhatTakesAsLongAsItTakesDoesNot) {
  Process process;
  process.first.become(State::LABOURS);
  EXPECT_EQ(process.untilHung([&](kj::Duration pause) { process.cpuOfFirst += pause; }), -1);
  process.first.become(State::WORKS);
  process.expectHungInTime([&](kj::Duration pause) { process.cpuOfFirst += pause; });
}

TEST(Heartbeat, ThreadsOfTheKernelsAreNotJudged) {
  Process process;
  auto ms = process.untilHung([&](kj::Duration pause) {
    process.cpuOfWorker += pause;
    process.uses(10 * kj::MICROSECONDS);
    process.turn();
  });
  EXPECT_EQ(ms, -1);
}

// Such as another build: it is not known what its words mean.
TEST(Heartbeat, OneThatShowsNothingIsHungOnlyWhenItIsStopped) {
  Process process;
  process.signs.word(0) = process.signs.word(1) = 0;
  process.heartbeat.forget();
  EXPECT_EQ(process.look(), "");
  process.state = 'R';
  EXPECT_EQ(process.untilHung([&](kj::Duration pause) { process.uses(pause); }), -1);
  process.state = 'T';
  EXPECT_GT(process.untilHung([](kj::Duration) {}), 0);
}

// Whoever looks may have been stopped with those it looks at, and be the first to go on.
TEST(Heartbeat, TimeInWhichNobodyLooksDoesNotCount) {
  for (bool isStopped : {false, true}) {
    Process process;
    process.loop.become(State::WORKS);
    process.state = isStopped ? 'T' : 'S';
    for (int i = 0; i < 2; i++) {
      process.now += 10 * kj::SECONDS;
      EXPECT_EQ(process.look(), "");
      EXPECT_EQ(process.heartbeat.pause(), Heartbeat::SOON);
    }
    process.expectHungInTime([](kj::Duration) {});
  }
}

TEST(Heartbeat, WhatWasSeenBeforeAPauseDoesNotCount) {
  Process process;
  process.state = 'T';
  process.now += Heartbeat::LOOK;
  EXPECT_EQ(process.look(), "");
  process.heartbeat.forget();
  process.now += 1 * kj::HOURS;
  EXPECT_EQ(process.look(), "");
  process.state = 'S';
  process.now += Heartbeat::SOON;
  EXPECT_EQ(process.look(), "");
  EXPECT_NE(process.heartbeat.pause(), Heartbeat::SOON);
}

// A real process, as `troupe` looks at one.
class RealProcess final: public ProcessLook {
 public:
  explicit RealProcess(pid_t pid) : clock(pid) {}
  kj::Maybe<kj::Duration> cpuTime() override { return clock.time(); }
  kj::Maybe<ThreadLook> mainThread() override { return lookAtMainThread(clock.pid); }
  kj::Vector<ThreadLook> threads() override { return lookAtThreads(clock.pid); }
  Freeze freeze() override { return Freeze::NONE; }

 private:
  CpuClock clock;
};

// On the first CPU that there is, and never back.
pid_t startOnOneCpu(kj::Function<void()> run) {
  pid_t child = fork();
  if (child != 0) return child;
  cpu_set_t all, one;
  sched_getaffinity(0, sizeof(all), &all);
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof(one), &one);
  run();
  _exit(0);
}

// As by a busy host, or by its cpu.max: seconds of its loop's turns go by without a CPU.
TEST(Heartbeat, OneThatIsStarvedOfCpuTimeIsNotHung) {
  void* shared =
      mmap(nullptr, VitalSigns::BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  VitalSigns signs(kj::arrayPtr(static_cast<kj::byte*>(shared), VitalSigns::BYTES), 0);
  pid_t hog = startOnOneCpu([] {
    for (;;)
      asm volatile("pause");
  });
  pid_t starved = startOnOneCpu([&] {
    sched_param none = {};
    sched_setscheduler(0, SCHED_IDLE, &none);
    Pulse pulse;
    pulse.showIn(signs.word(0));
    for (;;) {
      // A turn that takes so much of its CPU time.
      auto begun = KJ_ASSERT_NONNULL(CpuClock(getpid()).time());
      while (KJ_ASSERT_NONNULL(CpuClock(getpid()).time()) - begun < 20 * kj::MILLISECONDS) {
      }
      pulse.beat();
    }
  });
  RealProcess process(starved);
  Heartbeat heartbeat(process);
  auto& clock = kj::systemPreciseMonotonicClock();
  for (auto begun = clock.now(); clock.now() - begun < 4 * kj::SECONDS;) {
    EXPECT_TRUE(heartbeat.look(clock.now(), signs) == nullptr);
    usleep(heartbeat.pause() / kj::MICROSECONDS);
  }
  for (pid_t child : {hog, starved}) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  munmap(shared, VitalSigns::BYTES);
}

}  // namespace
}  // namespace troupe
