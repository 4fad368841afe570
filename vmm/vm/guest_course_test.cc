#include "vmm/vm/guest_course.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <string>

namespace troupe {
namespace {

// A broker whose guest ends when the test says so.
class FakeBroker final: public Broker::Server {
 public:
  kj::Promise<void> waitForEnd(WaitForEndContext context) override {
    waits++;
    if (ends.size() == 0) {
      auto pair = kj::newPromiseAndFulfiller<void>();
      waiting = kj::mv(pair.fulfiller);
      return pair.promise.then([this, context]() mutable { return waitForEnd(context); });
    }
    auto end = context.getResults().initEnd();
    end.setReason(ends.front().reason);
    end.setBoot(ends.front().boot);
    end.setDetail("why");
    ends = kj::Vector<Given>();
    return kj::READY_NOW;
  }
  kj::Promise<void> reboot(RebootContext context) override {
    reboots++;
    commandLine = context.getParams().getFiles().getCommandLine().cStr();
    KJ_IF_MAYBE (answer, nextReboot) {
      auto promise = kj::mv(*answer);
      nextReboot = nullptr;
      return promise;
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> pause(PauseContext) override { return kj::READY_NOW; }
  kj::Promise<void> resume(ResumeContext) override { return kj::READY_NOW; }

  void endGuest(EndReason reason, uint32_t boot) {
    ends.add(Given{reason, boot});
    if (waiting.get() != nullptr && waiting->isWaiting()) waiting->fulfill();
  }

  struct Given {
    EndReason reason;
    uint32_t boot;
  };
  kj::Vector<Given> ends;
  kj::Own<kj::PromiseFulfiller<void>> waiting;
  kj::Maybe<kj::Promise<void>> nextReboot;
  uint32_t waits = 0;
  uint32_t reboots = 0;
  std::string commandLine;
};

struct Bench {
  explicit Bench(OnReboot onReboot = OnReboot::RESTART) {
    auto own = kj::heap<FakeBroker>();
    broker = own.get();
    course = kj::heap<GuestCourse>(
        timer, kj::mv(own), "vm", onReboot,
        [](GuestCourse::RebootRequest& request) { request.initFiles().setCommandLine("words"); },
        60 * kj::SECONDS);
    life =
        course->untilEnd().then([this]() { ended = true; }).eagerlyEvaluate([](kj::Exception&& e) {
          ADD_FAILURE() << kj::str(e).cStr();
        });
    advance(1 * kj::SECONDS);
  }

  void advance(kj::Duration time) {
    for (auto end = timer.now() + time; timer.now() < end;) {
      timer.advanceTo(timer.now() + 10 * kj::MILLISECONDS);
      scope.poll();
    }
  }

  kj::EventLoop loop;
  kj::WaitScope scope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>() + 1 * kj::HOURS};
  FakeBroker* broker;
  kj::Own<GuestCourse> course;
  bool ended = false;
  kj::Promise<void> life = nullptr;
};

TEST(GuestCourse, AResetStartsTheGuestAnewAndAPowerOffEndsIt) {
  Bench bench;
  bench.broker->endGuest(EndReason::RESET, 0);
  bench.advance(1 * kj::SECONDS);
  EXPECT_EQ(bench.broker->reboots, 1u);
  EXPECT_EQ(bench.broker->commandLine, "words");
  EXPECT_EQ(bench.course->reboots(), 1u);
  EXPECT_FALSE(bench.ended);
  EXPECT_TRUE(bench.course->outcome().end == nullptr);
  bench.broker->endGuest(EndReason::POWERED_OFF, 1);
  bench.advance(1 * kj::SECONDS);
  EXPECT_TRUE(bench.ended);
  EXPECT_EQ(KJ_ASSERT_NONNULL(bench.course->outcome().end).reason, EndReason::POWERED_OFF);
}

TEST(GuestCourse, WithExitEveryEndStays) {
  for (auto reason : {EndReason::RESET, EndReason::CRASHED, EndReason::PANICKED}) {
    Bench bench(OnReboot::EXIT);
    bench.broker->endGuest(reason, 0);
    bench.advance(1 * kj::SECONDS);
    EXPECT_TRUE(bench.ended);
    EXPECT_EQ(bench.broker->reboots, 0u);
    EXPECT_EQ(KJ_ASSERT_NONNULL(bench.course->outcome().end).reason, reason);
    EXPECT_EQ(bench.course->outcome().crashes, 0u);
  }
}

TEST(GuestCourse, AGuestThatOnlyCrashesIsGivenUp) {
  Bench bench;
  uint32_t boot = 0;
  while (!bench.ended && boot < 100) {
    bench.broker->endGuest(boot % 2 ? EndReason::CRASHED : EndReason::PANICKED, boot);
    bench.advance(1 * kj::SECONDS);
    boot++;
  }
  EXPECT_EQ(boot, 5u);
  EXPECT_EQ(bench.broker->reboots, 4u);
  EXPECT_EQ(bench.course->outcome().crashes, 5u);
}

TEST(GuestCourse, AGuestThatOnlyResetsItselfBootsTenTimesASecondAtMost) {
  Bench bench;
  uint32_t boot = 0;
  for (int i = 0; i < 100; i++) {
    if (bench.broker->ends.size() == 0 && boot == bench.broker->reboots) {
      bench.broker->endGuest(EndReason::RESET, boot++);
    }
    bench.advance(10 * kj::MILLISECONDS);
  }
  EXPECT_GE(bench.broker->reboots, 5u);
  EXPECT_LE(bench.broker->reboots, 11u);
  EXPECT_FALSE(bench.ended);
}

TEST(GuestCourse, AnEndOfABootThatTheUserEndedIsNoOther) {
  Bench bench;
  auto hold = kj::newPromiseAndFulfiller<void>();
  bench.broker->nextReboot = kj::mv(hold.promise);
  auto reset = bench.course->reset();
  bench.broker->endGuest(EndReason::RESET, 0);
  bench.advance(1 * kj::SECONDS);
  EXPECT_TRUE(bench.course->isRebooting());
  EXPECT_EQ(bench.broker->reboots, 1u);
  hold.fulfiller->fulfill();
  reset.wait(bench.scope);
  bench.advance(1 * kj::SECONDS);
  EXPECT_EQ(bench.broker->reboots, 1u);
  EXPECT_FALSE(bench.course->isRebooting());
}

TEST(GuestCourse, ButtonAndGuestAtTheSameTimeAreOneReset) {
  Bench bench;
  bench.course->reset().wait(bench.scope);
  bench.broker->endGuest(EndReason::RESET, 1);
  bench.advance(20 * kj::MILLISECONDS);  // it waits, having booted a moment ago
  EXPECT_EQ(bench.broker->reboots, 1u);
  bench.course->reset().wait(bench.scope);
  bench.advance(1 * kj::SECONDS);
  EXPECT_EQ(bench.broker->reboots, 2u);
}

TEST(GuestCourse, ResetsAtTheSameTimeAreOne) {
  Bench bench;
  auto first = bench.course->reset(), second = bench.course->reset();
  first.wait(bench.scope);
  second.wait(bench.scope);
  EXPECT_EQ(bench.broker->reboots, 1u);
  bench.course->reset().wait(bench.scope);
  EXPECT_EQ(bench.broker->reboots, 2u);
}

TEST(GuestCourse, ARebootThatFailsEndsTheVmWithItsReason) {
  Bench bench;
  bench.broker->nextReboot =
      kj::Promise<void>(KJ_EXCEPTION(FAILED, "TRP-boot-003: the kernel is cut short"));
  bench.broker->endGuest(EndReason::RESET, 0);
  bench.advance(1 * kj::SECONDS);
  EXPECT_TRUE(bench.ended);
  auto& failure = KJ_ASSERT_NONNULL(bench.course->outcome().rebootFailure);
  EXPECT_TRUE(failure.startsWith("TRP-boot-003: the guest of VM \"vm\" could not"))
      << failure.cStr();
}

TEST(GuestCourse, ARebootThatNeverEndsEndsTheVm) {
  Bench bench;
  bench.broker->nextReboot = kj::Promise<void>(kj::NEVER_DONE);
  bench.broker->endGuest(EndReason::CRASHED, 0);
  bench.advance(62 * kj::SECONDS);
  EXPECT_TRUE(bench.ended);
  auto& failure = KJ_ASSERT_NONNULL(bench.course->outcome().rebootFailure);
  EXPECT_TRUE(failure.startsWith("TRP-run-021: ")) << failure.cStr();
}

TEST(GuestCourse, ADeviceThatIsLostMeanwhileIsTheEnd) {
  Bench bench;
  bench.broker->nextReboot = kj::Promise<void>(KJ_EXCEPTION(FAILED, "the VM has ended meanwhile"));
  bench.broker->endGuest(EndReason::RESET, 0);
  bench.advance(20 * kj::MILLISECONDS);
  bench.broker->endGuest(EndReason::DEVICE_LOST, 1);
  bench.advance(1 * kj::SECONDS);
  EXPECT_TRUE(bench.ended);
  EXPECT_EQ(KJ_ASSERT_NONNULL(bench.course->outcome().end).reason, EndReason::DEVICE_LOST);
}

TEST(GuestCourse, WhoLeavesIsNotStartedAnew) {
  Bench bench;
  bench.course->isLeaving();
  bench.broker->endGuest(EndReason::RESET, 0);
  bench.advance(1 * kj::SECONDS);
  EXPECT_TRUE(bench.ended);
  EXPECT_EQ(bench.broker->reboots, 0u);
}

}  // namespace
}  // namespace troupe
