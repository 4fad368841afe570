#include "broker/device_slot.h"

#include <gtest/gtest.h>

#include "broker/remote_device_bench.h"

namespace troupe::broker {
namespace {

// One process at the other end of a pipe.
struct Process {
  Process(kj::AsyncIoContext& io, Script newScript) : script(kj::mv(newScript)) {
    int pair[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
    brokerEnd = kj::AutoCloseFd(pair[0]);
    peer = io.lowLevelProvider->wrapUnixSocketFd(kj::AutoCloseFd(pair[1]));
    auto owned = kj::heap<ScriptedDevice>(script);
    device = owned.get();
    network = kj::heap<capnp::TwoPartyVatNetwork>(*peer, 64, capnp::rpc::twoparty::Side::SERVER);
    rpc = kj::heap<capnp::RpcSystem<capnp::rpc::twoparty::VatId>>(
        capnp::makeRpcServer(*network, Device::Client(kj::mv(owned))));
  }
  std::string called() {
    std::string all;
    for (auto& call : device->calls)
      all += std::string(call.cStr()) + ";";
    return all;
  }

  Script script;
  kj::AutoCloseFd brokerEnd;
  ScriptedDevice* device;
  kj::Own<kj::AsyncCapabilityStream> peer;
  kj::Own<capnp::TwoPartyVatNetwork> network;
  kj::Own<capnp::RpcSystem<capnp::rpc::twoparty::VatId>> rpc;
};

struct Bench {
  explicit Bench(DeviceSlot::Loss loss = DeviceSlot::Loss::REPLACED) {
    for (auto& queue : queues)
      queue = {eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    slot = kj::heap<DeviceSlot>(
        io, 3, "blk3", loss, [this](uint16_t, uint32_t process, kj::StringPtr, kj::StringPtr why) {
          losses.add(kj::heapString(why));
          lastLost = process;
        });
    process = kj::heap<Process>(io, Script());
    slot->describe(kj::mv(process->brokerEnd)).wait(io.waitScope);
    slot->attach(RamGrant{RamFile{ram, RamFile::WRITABLE}, nullptr}, queues, client)
        .wait(io.waitScope);
  }
  ~Bench() noexcept {
    for (auto& queue : queues) {
      close(queue.kick);
      close(queue.call);
    }
  }
  void activate() {
    auto settings = kj::heapArray<QueueSettings>(1);
    settings[0] = {1, 8, 0x1000, 0x2000, 0x3000};
    slot->activate(1, kj::mv(settings));
    turn();
  }
  void kill() {
    process = nullptr;
    turn();
  }
  void replace(Script script = Script()) {
    slot->letGo();
    slot->dropPrepared();
    process = kj::heap<Process>(io, kj::mv(script));
    slot->prepare(kj::mv(process->brokerEnd)).wait(io.waitScope);
  }
  // Beside the one that serves, as `next`.
  void prepare(Script script = Script()) {
    slot->dropPrepared();
    next = kj::heap<Process>(io, kj::mv(script));
    slot->prepare(kj::mv(next->brokerEnd)).wait(io.waitScope);
  }
  void resume(bool ownFault = false) {
    resumed = slot->resume(ownFault).eagerlyEvaluate([](kj::Exception&&) {});
    turn();
  }
  void turn() {
    for (int i = 0; i < 4; ++i)
      io.waitScope.poll();
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::AutoCloseFd ram{memfd_create("ram", MFD_CLOEXEC)};
  QueueFds queues[2];
  NotedClient client;
  kj::Vector<kj::String> losses;
  uint32_t lastLost = 99;
  kj::Own<Process> process;
  kj::Own<Process> next;
  kj::Own<DeviceSlot> slot;
  kj::Promise<void> resumed = nullptr;
};

TEST(DeviceSlot, ASuccessorGoesOnWhereTheProcessBeforeStopped) {
  Bench bench;
  bench.slot->writeConfig(4, kj::arr<kj::byte>(1, 2));
  bench.activate();
  bench.kill();
  ASSERT_EQ(bench.losses.size(), 1);
  EXPECT_EQ(bench.losses[0], "closed its pipe");
  bench.replace();
  bench.turn();
  EXPECT_EQ(bench.process->called(), "");  // nothing before it was looked at
  bench.resume(/*ownFault=*/true);
  EXPECT_EQ(bench.process->called(), "config 4+2;activate 1;");
  auto& activation = bench.process->device->activations[0];
  EXPECT_EQ(activation.number, 1);
  EXPECT_TRUE(activation.resumed);
  EXPECT_TRUE(activation.ownFault);
  // An interrupt may have been lost.
  EXPECT_TRUE(drainEventFd(bench.queues[1].call));
  EXPECT_FALSE(drainEventFd(bench.queues[0].call));
  EXPECT_EQ(bench.client.needsResets, 0);
}

TEST(DeviceSlot, EachActivationHasItsNumber) {
  Bench bench;
  bench.activate();
  bench.slot->reset();
  bench.turn();
  bench.activate();
  ASSERT_EQ(bench.process->device->activations.size(), 2);
  EXPECT_EQ(bench.process->device->activations[1].number, 2);
  EXPECT_FALSE(bench.process->device->activations[1].resumed);
  bench.kill();
  bench.replace();
  bench.resume();
  EXPECT_EQ(bench.process->device->activations[0].number, 2);
}

TEST(DeviceSlot, AResetEndsWhenThereIsASuccessor) {
  for (bool isUnderWay : {true, false}) {
    Bench bench;
    bench.activate();
    bench.process->script.answersReset = false;
    if (isUnderWay) bench.slot->reset();
    bench.turn();
    bench.kill();
    if (!isUnderWay) bench.slot->reset();
    bench.turn();
    EXPECT_EQ(bench.client.resetsDone, 0);
    bench.replace();
    EXPECT_EQ(bench.client.resetsDone, 0);
    bench.resume();
    EXPECT_EQ(bench.client.resetsDone, 1);
    EXPECT_EQ(bench.process->called(), "");
    bench.activate();
    EXPECT_EQ(bench.process->device->activations[0].number, 2);
    EXPECT_FALSE(bench.process->device->activations[0].resumed);
  }
}

TEST(DeviceSlot, ADriverThatBeginsWhileItIsAwayIsServedByTheSuccessor) {
  Bench bench;
  bench.kill();
  bench.activate();
  bench.replace();
  bench.resume();
  EXPECT_EQ(bench.process->called(), "activate 1;");
}

TEST(DeviceSlot, AnActivationThatWasNotAnsweredIsMadeAgain) {
  Bench bench;
  bench.process->script.answersActivate = false;
  bench.activate();
  bench.kill();
  EXPECT_EQ(bench.client.needsResets, 0);
  bench.replace();
  bench.resume();
  EXPECT_EQ(bench.process->called(), "activate 1;");
}

TEST(DeviceSlot, ASuccessorThatDiesHasAnother) {
  Bench bench;
  bench.activate();
  for (int i = 0; i < 3; i++) {
    bench.kill();
    bench.replace();
    bench.kill();  // before it went on
    EXPECT_ANY_THROW(bench.slot->resume(false));
    bench.replace();
    bench.resume();
    EXPECT_EQ(bench.process->called(), "activate 1;");
  }
  EXPECT_EQ(bench.slot->successorCount(), 6);
  EXPECT_EQ(bench.losses.size(), 6);
}

TEST(DeviceSlot, AProcessThatLivesIsGivenUpForItsSuccessor) {
  Bench bench;
  bench.activate();
  bench.replace();
  bench.resume();
  EXPECT_EQ(bench.process->called(), "activate 1;");
  EXPECT_EQ(bench.losses.size(), 0);
}

TEST(DeviceSlot, AnotherDeviceIsNoSuccessor) {
  auto failure = [](std::function<void(DeviceInfo::Builder)> spoil) {
    Bench bench;
    bench.kill();
    Script script;
    auto sound = script.describe;
    script.describe = [&](DeviceInfo::Builder info) {
      sound(info);
      spoil(info);
    };
    return failureOf([&]() { bench.replace(kj::mv(script)); });
  };
  EXPECT_EQ(failure([](DeviceInfo::Builder) {}), "");
  EXPECT_EQ(failure([](DeviceInfo::Builder info) { info.setFeatures(0x70000000); }), "");
  for (auto& spoil : std::initializer_list<std::function<void(DeviceInfo::Builder)>>{
           [](DeviceInfo::Builder info) { info.setDeviceType(3); },
           [](DeviceInfo::Builder info) { info.setFeatures(0x10000000); },
           [](DeviceInfo::Builder info) { info.setQueueSizes({256}); },
           [](DeviceInfo::Builder info) {
             info.setQueueSizes({256, 128});
           },
           [](DeviceInfo::Builder info) { info.getConfigWriteMask()[3] = 1; },
       }) {
    EXPECT_EQ(failure(spoil).find("TRP-pci-004: device blk3 came back as another"), 0u);
  }
}

TEST(DeviceSlot, WhatTheSuccessorSaysOfItselfReachesTheDriver) {
  Bench bench;
  bench.kill();
  Script script;
  auto sound = script.describe;
  script.describe = [&](DeviceInfo::Builder info) {
    sound(info);
    info.getConfig()[2] = 7;
    info.getConfig()[3] = 7;
  };
  bench.replace(kj::mv(script));
  EXPECT_EQ(bench.client.changes, 0);
  bench.resume();
  EXPECT_EQ(bench.client.changes, 1);
}

TEST(DeviceSlot, WithoutASuccessorAResetEndsAtOnce) {
  Bench bench(DeviceSlot::Loss::FINAL);
  bench.activate();
  bench.kill();
  EXPECT_EQ(bench.losses.size(), 1);
  bench.slot->reset();
  EXPECT_EQ(bench.client.resetsDone, 1);
  bench.slot->letGo();
  EXPECT_ANY_THROW(bench.replace());
}

TEST(DeviceSlot, OneThatWasPreparedBesideGoesOnAfterADeath) {
  Bench bench;
  bench.activate();
  bench.prepare();
  bench.turn();
  EXPECT_EQ(bench.next->called(), "");
  EXPECT_EQ(bench.losses.size(), 0);
  bench.kill();
  EXPECT_EQ(bench.lastLost, 0);
  bench.slot->letGo();
  bench.resume(/*ownFault=*/true);
  EXPECT_EQ(bench.next->called(), "activate 1;");
  EXPECT_TRUE(bench.next->device->activations[0].ownFault);
}

TEST(DeviceSlot, WhatOneSaysBeforeItServesIsNotHeard) {
  Bench bench;
  bench.activate();
  bench.prepare();
  auto& host = KJ_ASSERT_NONNULL(bench.next->device->host);
  host.needsResetRequest().send().ignoreResult().wait(bench.io.waitScope);
  EXPECT_EQ(bench.client.needsResets, 0);
}

TEST(DeviceSlot, HandsOverWithoutItsDriver) {
  Bench bench;
  bench.activate();
  bench.prepare();
  bench.slot->handOver().wait(bench.io.waitScope);
  EXPECT_EQ(bench.process->called(), "activate 1;hand over;");
  EXPECT_EQ(bench.next->device->takeOvers, 0);  // the one before may not have ended
  bench.resume();
  EXPECT_EQ(bench.next->device->takeOvers, 1);
  EXPECT_EQ(bench.next->called(), "activate 1;");
  EXPECT_TRUE(bench.next->device->activations[0].resumed);
  EXPECT_FALSE(bench.next->device->activations[0].ownFault);
  EXPECT_EQ(bench.client.resetsDone, 0);
  EXPECT_EQ(bench.losses.size(), 0);
}

TEST(DeviceSlot, WhatADriverWishesWhileItHandsOverIsItsSuccessors) {
  for (bool asksBefore : {true, false}) {
    Bench bench;
    bench.activate();
    bench.prepare();
    bench.process->script.answersHandOver = false;
    bench.process->script.answersReset = false;
    if (asksBefore) bench.slot->reset();
    auto handed = bench.slot->handOver();
    bench.turn();
    if (!asksBefore) bench.slot->reset();
    bench.turn();
    EXPECT_EQ(bench.process->called(),
              asksBefore ? "activate 1;reset;hand over;" : "activate 1;hand over;");
    for (auto& call : bench.process->device->unanswered)
      call->fulfill();
    handed.wait(bench.io.waitScope);
    EXPECT_EQ(bench.client.resetsDone, 0);
    bench.resume();
    EXPECT_EQ(bench.client.resetsDone, 1);
    EXPECT_EQ(bench.next->called(), "");
  }
}

TEST(DeviceSlot, OneThatDiesWhileItHandsOverIsLostAndItsSuccessorReady) {
  Bench bench;
  bench.activate();
  bench.prepare();
  bench.process->script.answersHandOver = false;
  auto handed = bench.slot->handOver();
  bench.turn();
  bench.kill();
  EXPECT_ANY_THROW(handed.wait(bench.io.waitScope));
  EXPECT_EQ(bench.losses.size(), 1);
  bench.slot->letGo();
  bench.resume();
  EXPECT_EQ(bench.next->called(), "activate 1;");
}

TEST(DeviceSlot, OneThatDoesNotHandOverInTimeIsLost) {
  Bench bench;
  bench.activate();
  bench.process->script.answersHandOver = false;
  EXPECT_ANY_THROW(bench.slot->handOver().wait(bench.io.waitScope));
  ASSERT_EQ(bench.losses.size(), 1);
  EXPECT_NE(std::string(bench.losses[0].cStr()).find("asked to hand over"), std::string::npos);
}

// A disk may have to be saved first.
TEST(DeviceSlot, ADeviceIsAwayUntilItsSuccessorHasTakenOver) {
  Bench bench;
  bench.activate();
  bench.kill();
  Script slow;
  slow.answersTakeOver = false;
  bench.replace(kj::mv(slow));
  bench.resume();
  EXPECT_EQ(bench.process->called(), "");
  bench.slot->reset();
  bench.slot->writeConfig(4, kj::arr<kj::byte>(1));
  bench.activate();
  bench.turn();
  EXPECT_EQ(bench.process->called(), "");
  EXPECT_EQ(bench.client.resetsDone, 0);
  bench.process->device->unanswered[0]->fulfill();
  bench.resumed.wait(bench.io.waitScope);
  bench.turn();
  EXPECT_EQ(bench.process->called(), "config 4+1;activate 1;");
  EXPECT_EQ(bench.process->device->activations[0].number, 2);
  EXPECT_EQ(bench.client.resetsDone, 1);
}

TEST(DeviceSlot, OneThatIsLostAsItTakesOverIsFollowedByAnother) {
  for (bool refuses : {true, false}) {
    Bench bench;
    bench.activate();
    bench.kill();
    Script wrong;
    wrong.answersTakeOver = false;
    bench.replace(kj::mv(wrong));
    bench.process->script.refuses = refuses;
    auto resumed = bench.slot->resume(/*ownFault=*/false);
    bench.turn();
    if (!refuses) bench.kill();
    EXPECT_ANY_THROW(resumed.wait(bench.io.waitScope));
    ASSERT_EQ(bench.losses.size(), 2);
    EXPECT_EQ(bench.lastLost, 1);
    bench.replace();
    bench.resume();
    EXPECT_EQ(bench.process->called(), "activate 1;");
  }
}

// `troupe` may know of a death before the broker does.
TEST(DeviceSlot, WhatOneIsAskedForEndsWhenItIsGivenUp) {
  Bench bench;
  bench.process->script.answersReports = false;
  bench.process->script.answersHandOver = false;
  auto report = bench.slot->report();
  auto handOver = bench.slot->handOver();
  bench.turn();
  bench.slot->letGo();
  EXPECT_NE(failureOf([&]() { report.wait(bench.io.waitScope); }), "");
  EXPECT_NE(failureOf([&]() { handOver.wait(bench.io.waitScope); }), "");
  Script silent;
  silent.answersTakeOver = false;
  bench.replace(kj::mv(silent));
  auto resumed = bench.slot->resume(false);
  bench.turn();
  bench.slot->dropPrepared();
  EXPECT_NE(failureOf([&]() { resumed.wait(bench.io.waitScope); }), "");
  bench.turn();
  EXPECT_EQ(bench.losses.size(), 0);  // it was given up, not lost
  bench.replace();
  bench.resume();
  EXPECT_EQ(bench.process->device->takeOvers, 1);
}

TEST(DeviceSlot, OneThatIsLeftDownWaitsForItsDriversReset) {
  Bench bench;
  bench.activate();
  bench.kill();
  auto wanted = bench.slot->leaveDown();
  EXPECT_EQ(bench.client.needsResets, 1);
  bench.turn();
  EXPECT_FALSE(wanted.poll(bench.io.waitScope));
  bench.slot->reset();
  wanted.wait(bench.io.waitScope);
  EXPECT_EQ(bench.client.resetsDone, 0);
  bench.replace();
  bench.resume();
  EXPECT_EQ(bench.client.resetsDone, 1);
  EXPECT_EQ(bench.process->called(), "");
}

TEST(DeviceSlot, OneThatIsLeftDownAmidAResetIsWantedAtOnce) {
  Bench bench;
  bench.activate();
  bench.process->script.answersReset = false;
  bench.slot->reset();
  bench.turn();
  bench.kill();
  bench.slot->leaveDown().wait(bench.io.waitScope);
}

capnp::MallocMessageBuilder& resized() {
  static capnp::MallocMessageBuilder message;
  message.initRoot<HostEvent>().initConsoleSize().setColumns(7);
  return message;
}

TEST(DeviceSlot, AnEventAmidADeathIsToldToTheSuccessor) {
  for (bool isUnderWay : {true, false}) {
    Bench bench;
    bench.activate();
    bench.process->script.answersEvents = false;
    kj::Promise<void> told = kj::READY_NOW;
    auto tell = [&]() { told = bench.slot->hostEvent(resized().getRoot<HostEvent>().asReader()); };
    if (isUnderWay) tell();
    bench.turn();
    bench.kill();
    if (!isUnderWay) tell();
    bench.turn();
    EXPECT_FALSE(told.poll(bench.io.waitScope));
    bench.replace();
    bench.resume();
    told.wait(bench.io.waitScope);
  }
}

TEST(DeviceSlot, AnEventForOneThatIsDownFailsWithTheReason) {
  Bench bench;
  bench.activate();
  bench.kill();
  auto wanted = bench.slot->leaveDown();
  auto failure = failureOf([&]() {
    bench.slot->hostEvent(resized().getRoot<HostEvent>().asReader()).wait(bench.io.waitScope);
  });
  EXPECT_EQ(failure, "the device is down until its driver resets it");
}

}  // namespace
}  // namespace troupe::broker
