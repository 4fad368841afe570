#include "vmm/control/control_actor.h"

#include <gtest/gtest.h>
#include <kj/async.h>
#include <kj/debug.h>
#include <kj/timer.h>

namespace troupe {
namespace {

class FakeVm final: public RunningVm {
 public:
  kj::StringPtr name() const override { return "vm"; }
  kj::Promise<void> onRunning() override { return kj::NEVER_DONE; }
  kj::Promise<VmEnd> onEnd() override { return kj::NEVER_DONE; }
  void stop(kj::String) override {}
  void shutDown(kj::Duration) override {}
  kj::Promise<void> powerButton() override { return kj::NEVER_DONE; }
  kj::Promise<void> pause() override { return kj::NEVER_DONE; }
  kj::Promise<void> resume() override { return kj::NEVER_DONE; }
  kj::Promise<void> reset() override { return kj::NEVER_DONE; }
  kj::Promise<BrokerCounters> counters() override { return kj::NEVER_DONE; }
  kj::Promise<uint64_t> resizeDisk(kj::StringPtr, uint64_t) override { return kj::NEVER_DONE; }
  kj::Promise<void> replaceDevice(kj::StringPtr, NewBuild) override { return kj::NEVER_DONE; }
  kj::Promise<kj::Own<capnp::MallocMessageBuilder>> balloon(BalloonRequest::Reader) override {
    return kj::NEVER_DONE;
  }
  kj::Promise<kj::String> net(kj::StringPtr, NetWish::Reader) override { return kj::NEVER_DONE; }
  void terminalResized() override {}
  void terminalResumed() override {}
  void describe(VmStatus::Builder status) override { status.setName("vm"); }
  bool isStill() override { return moves == 0 || moves-- == 0; }
  void inspectJails(VmJails::Builder) override {
    inspections++;
    moves += movesAtALook;
    movesAtALook = 0;
  }
  void describeGraph(VmGraph::Builder) override { inspections++; }
  void describeLoad(VmLoad::Builder load) override { load.setLastEvent(++looks); }
  EventLog& events() override { return log; }
  kj::Vector<kj::String> notes() override { return {}; }

  EventLog log;
  uint32_t looks = 0;
  uint32_t inspections = 0;
  uint32_t moves = 0;         // so many times it is asked and not still
  uint32_t movesAtALook = 0;  // as many more once it is looked at
};

class ControlActorBench {
 public:
  void inspect() {
    underWay.add(vmClient.inspectJailsRequest()
                     .send()
                     .then([this](auto&&) { answered++; })
                     .eagerlyEvaluate([this](kj::Exception&& exception) {
                       refused++;
                       EXPECT_EQ(kj::Exception::Type::OVERLOADED, exception.getType());
                     }));
    scope.poll();
  }

  void advance(kj::Duration time) {
    timer.advanceTo(timer.now() + time);
    scope.poll();
  }

  kj::EventLoop loop;
  kj::WaitScope scope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>() + 1 * kj::HOURS};
  FakeVm vm;
  Vm::Client vmClient = kj::heap<ControlActor>(vm, timer);
  kj::Vector<kj::Promise<void>> underWay;
  uint32_t answered = 0;
  uint32_t refused = 0;
};

constexpr kj::Duration PAUSE = ControlActor::INSPECTION_PAUSE;

TEST(ControlActor, OneInspectionIsAnsweredAtOnceAndTheNextAfterAPause) {
  ControlActorBench bench;
  bench.inspect();
  bench.advance(0 * kj::SECONDS);
  EXPECT_EQ(1u, bench.vm.inspections);
  bench.inspect();
  bench.inspect();
  bench.advance(PAUSE - 1 * kj::MILLISECONDS);
  EXPECT_EQ(1u, bench.vm.inspections);
  bench.advance(1 * kj::MILLISECONDS);
  EXPECT_EQ(2u, bench.vm.inspections);
  bench.advance(PAUSE);
  EXPECT_EQ(3u, bench.vm.inspections);
  EXPECT_EQ(0u, bench.refused);
}

TEST(ControlActor, OfManyInspectionsAtOnceSomeWaitAndTheRestAreRefused) {
  ControlActorBench bench;
  for (uint32_t i = 0; i < ControlActor::MOST_CALLS + 9; i++)
    bench.inspect();
  EXPECT_EQ(9u, bench.refused);
  // Those that wait have their turns, whether somebody still wants the answer or not.
  bench.underWay.clear();
  for (uint32_t i = 0; i < ControlActor::MOST_CALLS; i++)
    bench.advance(PAUSE);
  EXPECT_EQ(ControlActor::MOST_CALLS, bench.vm.inspections);
  bench.inspect();
  bench.advance(PAUSE);
  EXPECT_EQ(9u, bench.refused);
  EXPECT_EQ(ControlActor::MOST_CALLS + 1, bench.vm.inspections);
}

TEST(ControlActor, ADeviceThatIsBeingReplacedIsWaitedFor) {
  ControlActorBench bench;
  bench.vm.moves = 2;
  bench.inspect();
  bench.advance(ControlActor::STILL_STEP);
  EXPECT_EQ(0u, bench.vm.inspections);
  bench.advance(ControlActor::STILL_STEP);
  bench.advance(0 * kj::SECONDS);
  EXPECT_EQ(1u, bench.vm.inspections);
  EXPECT_EQ(1u, bench.answered);
}

TEST(ControlActor, WhoDiesWhileItIsLookedAtIsLookedAtAgain) {
  ControlActorBench bench;
  bench.vm.movesAtALook = 1;
  bench.inspect();
  bench.advance(0 * kj::SECONDS);
  EXPECT_EQ(1u, bench.vm.inspections);
  EXPECT_EQ(0u, bench.answered);
  bench.advance(PAUSE);
  EXPECT_EQ(2u, bench.vm.inspections);
  EXPECT_EQ(1u, bench.answered);
}

TEST(ControlActor, OneThatIsReplacedForEverIsLookedAtInTheEnd) {
  ControlActorBench bench;
  bench.vm.moves = 1 << 30;
  bench.inspect();
  for (auto waited = 0 * kj::SECONDS; waited < ControlActor::STILL_DEADLINE;
       waited += ControlActor::STILL_STEP) {
    EXPECT_EQ(0u, bench.vm.inspections);
    bench.advance(ControlActor::STILL_STEP);
  }
  bench.advance(PAUSE);
  EXPECT_EQ(1u, bench.vm.inspections);
  EXPECT_EQ(1u, bench.answered);
}

TEST(ControlActor, CallsToTheBrokerAreBoundedToo) {
  ControlActorBench bench;
  for (uint32_t i = 0; i < ControlActor::MOST_CALLS; i++)
    bench.underWay.add(bench.vmClient.powerButtonRequest().send().ignoreResult());
  bench.inspect();
  EXPECT_EQ(1u, bench.refused);
}

TEST(ControlActor, WhoIsNoLongerWaitedForAsItStopsTakesNoRoom) {
  ControlActorBench bench;
  for (uint32_t i = 0; i < 2 * ControlActor::MOST_CALLS; i++) {
    auto request = bench.vmClient.stopRequest();
    request.setTimeoutMs(3600 * 1000);
    kj::Promise<void> stopping = request.send().ignoreResult();
    bench.scope.poll();
  }
  bench.inspect();
  bench.advance(PAUSE);
  EXPECT_EQ(0u, bench.refused);
  EXPECT_EQ(1u, bench.answered);
}

TEST(ControlActor, CallsEndWithTheirVm) {
  ControlActorBench bench;
  auto vm = kj::heap<FakeVm>();
  auto control = kj::heap<VmControl>(*vm, bench.timer);
  auto client = control->client();
  vm->moves = 1 << 30;
  kj::Vector<kj::Promise<void>> calls;
  uint32_t ended = 0;
  auto add = [&](kj::Promise<void> call) {
    calls.add(call.eagerlyEvaluate([&](kj::Exception&& failure) {
      ended++;
      EXPECT_EQ(failure.getType(), kj::Exception::Type::DISCONNECTED);
    }));
    bench.scope.poll();
  };
  add(client.inspectJailsRequest().send().ignoreResult());
  add(client.graphRequest().send().ignoreResult());
  add(client.pauseRequest().send().ignoreResult());
  EXPECT_EQ(ended, 0u);
  control = nullptr;
  vm = nullptr;
  bench.advance(ControlActor::STILL_DEADLINE);
  EXPECT_EQ(ended, 3u);
  // And nobody reaches it any more.
  add(client.statusRequest().send().ignoreResult());
  add(client.loadRequest().send().ignoreResult());
  add(client.eventsRequest().send().ignoreResult());
  EXPECT_EQ(ended, 6u);
}

TEST(ControlActor, WhoAsksForTheLoadTooOftenIsToldTheSameAgain) {
  ControlActorBench bench;
  auto look = [&]() {
    return bench.vmClient.loadRequest().send().wait(bench.scope).getLoad().getLastEvent();
  };
  EXPECT_EQ(look(), 1u);
  EXPECT_EQ(look(), 1u);
  bench.advance(ControlActor::LOAD_PAUSE - 1 * kj::MILLISECONDS);
  EXPECT_EQ(look(), 1u);
  bench.advance(1 * kj::MILLISECONDS);
  EXPECT_EQ(look(), 2u);
}

TEST(ControlActor, SoManyReadEventsAndOneMoreWhenOneHasLeft) {
  ControlActorBench bench;
  auto open = [&]() { return bench.vmClient.eventsRequest().send().wait(bench.scope).getReader(); };
  kj::Vector<EventReader::Client> readers;
  for (uint32_t i = 0; i < ControlActor::MOST_READERS; i++)
    readers.add(open());
  auto refusal = kj::runCatchingExceptions([&]() { open(); });
  EXPECT_TRUE(KJ_ASSERT_NONNULL(refusal).getDescription().startsWith("TRP-obs-003: "));
  readers.removeLast();
  bench.scope.poll();
  readers.add(open());
}

}  // namespace
}  // namespace troupe
