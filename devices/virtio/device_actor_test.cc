#include "devices/virtio/device_actor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/virtio/testing/scripted_engine.h"

namespace troupe::virtio {
namespace {

using testing::DeviceBench;
using testing::FakeDriver;
using testing::FakeRam;
using testing::Script;
using testing::ScriptedEngine;
using testing::writable;
using Stage = testing::ScriptedStage;

constexpr uint64_t FEATURES = testing::SCRIPTED_FEATURES;

TEST(DeviceActor, DescribesTheEngine) {
  Stage stage;
  auto response = stage.bench.describe();
  auto info = response.getInfo();
  EXPECT_EQ(info.getDeviceType(), 42);
  EXPECT_EQ(info.getFeatures(), FEATURES);
  ASSERT_EQ(info.getQueueSizes().size(), 2);
  EXPECT_EQ(info.getQueueSizes()[1], 256);
  EXPECT_EQ(info.getConfig().size(), 4);
  EXPECT_EQ(info.getConfigWriteMask()[2], 255);
  EXPECT_EQ(info.getResetDeadlineMs(), 500);
}

TEST(DeviceActor, AttachEntersReadyBeforeItAnswers) {
  Stage stage;
  stage.bench.attach();
  ASSERT_EQ(stage.bench.jail.stages.size(), 1);
  EXPECT_EQ(stage.bench.jail.stages[0], "ready");
}

TEST(DeviceActor, ActivateHandsRingsMemoryAndEventFdsToTheEngine) {
  Stage stage;
  stage.bench.attach();
  FakeDriver second(stage.ram, 256);
  stage.bench.activate(F_VERSION_1 | F_EVENT_IDX, {&stage.driver, &second});
  EXPECT_EQ(stage.bench.jail.stages.back(), "run");
  ASSERT_EQ(stage.script.queues.size(), 2);
  EXPECT_EQ(stage.script.queues[1].index, 1);
  EXPECT_EQ(stage.script.queues[1].ring->size(), 256);
  EXPECT_EQ(stage.script.features, F_VERSION_1 | F_EVENT_IDX);

  // The fds are the broker's, under numbers of the device's own.
  stage.bench.kick(0);
  eventfd_t count;
  EXPECT_EQ(eventfd_read(stage.script.queues[0].kick, &count), 0);
  EXPECT_EQ(eventfd_write(stage.script.queues[1].call, 1), 0);
  EXPECT_TRUE(stage.bench.interrupted(1));

  // The memory is the guest's.
  uint64_t address = stage.ram.allocate(16);
  stage.driver.add({writable(address, 4)});
  auto chain = stage.script.queues[0].ring->pop();
  ASSERT_TRUE(KJ_ASSERT_NONNULL(chain).writeBytes(kj::StringPtr("abcd").asBytes()));
  EXPECT_EQ(memcmp(stage.ram.bytes(address, 4).begin(), "abcd", 4), 0);
}

TEST(DeviceActor, EachChainOfAQueueIsAStepOfTheMainThread) {
  Stage stage;
  uint64_t word = 0;
  stage.bench.pulse.showIn(word);
  stage.bench.attach();
  FakeDriver second(stage.ram, 256);
  stage.bench.activate(F_VERSION_1, {&stage.driver, &second});
  uint64_t address = stage.ram.allocate(16);
  for (size_t i : {0, 1}) {
    (i == 0 ? stage.driver : second).add({writable(address, 4)});
    uint64_t before = word;
    EXPECT_FALSE(stage.script.queues[i].ring->pop() == nullptr);
    EXPECT_NE(word, before);
  }
}

TEST(DeviceActor, DisabledQueuesAreLeftOut) {
  Stage stage;
  stage.bench.attach();
  stage.bench.activate(0, {nullptr, &stage.driver});
  ASSERT_EQ(stage.script.queues.size(), 1);
  EXPECT_EQ(stage.script.queues[0].index, 1);
}

TEST(DeviceActor, MemoryAbove4GiBIsFoundBehindTheHole) {
  Script script;
  FakeRam ram({{0, FakeRam::MIB}, {4ull << 30, FakeRam::MIB}});
  DeviceBench bench(ram, [&](kj::AsyncIoContext&) { return kj::heap<ScriptedEngine>(script); });
  FakeDriver driver(ram, 8);
  bench.attach();
  bench.activate(0, {&driver});
  driver.add({writable((4ull << 30) + 4096, 4)});
  auto chain = script.queues[0].ring->pop();
  ASSERT_TRUE(KJ_ASSERT_NONNULL(chain).writeBytes(kj::StringPtr("high").asBytes()));
  EXPECT_EQ(memcmp(ram.bytes((4ull << 30) + 4096, 4).begin(), "high", 4), 0);
}

TEST(DeviceActor, ConfigAndHostEventsReachTheEngine) {
  Stage stage;
  stage.bench.attach();
  const kj::byte bytes[] = {9, 8};
  stage.bench.writeConfig(2, kj::arrayPtr(bytes, 2));
  ASSERT_EQ(stage.script.written.size(), 3);
  EXPECT_EQ(stage.script.written[0], 2);
  EXPECT_EQ(stage.script.written[2], 8);
  stage.bench.consoleSize(80, 25);
  EXPECT_EQ(stage.script.hostEvents, 1);
  EXPECT_ANY_THROW(stage.bench.writeConfig(3, kj::arrayPtr(bytes, 2)));
  EXPECT_ANY_THROW(stage.bench.writeConfig(UINT32_MAX, kj::arrayPtr(bytes, 2)));
}

TEST(DeviceActor, EngineReachesTheBroker) {
  Stage stage;
  stage.bench.attach();
  stage.bench.activate(0, {&stage.driver});
  const kj::byte bytes[] = {7};
  stage.script.link->configChanged(1, kj::arrayPtr(bytes, 1));
  stage.script.link->needsReset();
  stage.script.link->needsReset();
  stage.bench.settle();
  ASSERT_EQ(stage.bench.host.configChanges.size(), 1);
  EXPECT_EQ(stage.bench.host.configChanges[0].offset, 1);
  EXPECT_EQ(stage.bench.host.configChanges[0].data[0], 7);
  EXPECT_EQ(stage.bench.host.resetsAsked, 1);  // a guest does not choose how often
}

// RST-01: the answer waits until the engine has let go, and a second reset waits with it.
TEST(DeviceActor, RST01_ResetWaitsForTheEngine) {
  Stage stage;
  stage.bench.attach();
  stage.bench.activate(0, {&stage.driver});
  stage.script.stopAtOnce = false;
  int answers = 0;
  auto device = stage.bench.device();
  auto first =
      device.resetRequest().send().then([&](auto&&) { ++answers; }).eagerlyEvaluate(nullptr);
  auto second =
      device.resetRequest().send().then([&](auto&&) { ++answers; }).eagerlyEvaluate(nullptr);
  stage.bench.settle();
  EXPECT_EQ(stage.script.stops, 1);
  EXPECT_EQ(answers, 0);
  EXPECT_ANY_THROW(stage.bench.activate(0, {&stage.driver}));
  stage.script.letGo->fulfill();
  stage.bench.settle();
  EXPECT_EQ(answers, 2);
  stage.bench.activate(0, {&stage.driver});
  EXPECT_EQ(stage.script.starts, 2);
}

TEST(DeviceActor, RST04_ResetWithoutActivateIsHarmless) {
  Stage stage;
  stage.bench.reset();
  stage.bench.attach();
  stage.bench.kick(0);
  stage.bench.reset();
  stage.bench.reset();
  EXPECT_EQ(stage.script.stops, 0);
  stage.bench.activate(0, {&stage.driver});
  stage.bench.reset();
  stage.bench.kick(0);
  stage.bench.reset();
  EXPECT_EQ(stage.script.stops, 1);
}

// How many fds of this process are the RAM's file.
int ramFds() {
  int count = 0;
  char target[64];
  for (int fd = 0; fd < 256; fd++) {
    ssize_t n = readlink(kj::str("/proc/self/fd/", fd).cStr(), target, sizeof(target));
    if (n > 0 && kj::StringPtr(kj::heapString(target, n)).startsWith("/memfd:fake-ram")) ++count;
  }
  return count;
}

// The fds came lent with the call, so they are gone once the broker has dropped its answer: the
// next call's answer comes after that.
TEST(DeviceActor, LentFdsAreClosedBehindAttach) {
  Stage stage;
  stage.bench.attach();
  stage.bench.describe();
  EXPECT_EQ(ramFds(), 2);  // the test's own: what was mapped needs no fd
}

int lowestFreeFd() {
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(fd);
  return fd;
}

TEST(DeviceActor, ManyCyclesKeepTheSameFds) {
  Stage stage;
  stage.bench.attach();
  stage.bench.settle();
  int before = lowestFreeFd();
  for (int i = 0; i < 200; i++) {
    stage.bench.activate(0, {&stage.driver});
    stage.bench.reset();
  }
  EXPECT_EQ(before, lowestFreeFd());
}

// VQ-01: a ring a guest may have written is answered with NEEDS_RESET, not with an exception.
TEST(DeviceActor, VQ01_RingsThatCannotBeAskForAReset) {
  const struct {
    uint16_t size;
    uint64_t descriptors, available, used;
  } bad[] = {
      {0, 0, 0x1000, 0x2000},         {3, 0, 0x1000, 0x2000},
      {16, 0, 0x1000, 0x2000},  // above the maximum of queue 0
      {8, 8, 0x1000, 0x2000},         {8, 0, 0x1001, 0x2000},
      {8, 0, 0x1000, 0x2002},         {8, 1ull << 40, 0x1000, 0x2000},
      {8, UINT64_MAX & ~15ull, 0, 0}, {8, 0, UINT64_MAX - 1, 0},
      {8, 0, 0, UINT64_MAX - 3},      {8, 4 * FakeRam::MIB - 64, 0, 0},
      {32768, 0, 0x1000, 0x2000},     {32769, 0, 0x1000, 0x2000},
  };
  Stage stage;
  stage.bench.attach();
  uint32_t asked = 0;
  for (auto& layout : bad) {
    auto request = stage.bench.device().activateRequest();
    auto queue = request.initQueues(1)[0];
    queue.setSize(layout.size);
    queue.setDescriptorTable(layout.descriptors);
    queue.setAvailableRing(layout.available);
    queue.setUsedRing(layout.used);
    stage.bench.await(request.send().ignoreResult());
    stage.bench.settle();
    EXPECT_EQ(stage.bench.host.resetsAsked, ++asked);
    stage.bench.reset();
  }
  EXPECT_EQ(stage.script.starts, 0);
  stage.bench.activate(0, {&stage.driver});
  EXPECT_EQ(stage.script.starts, 1);
}

// Processes of one device, each with the journals of those before it.
struct Successions {
  Script script;
  FakeRam ram;
  kj::Array<uint64_t> words = kj::heapArray<uint64_t>(4096);
  FakeDriver driver{ram, 8};
  kj::Own<DeviceBench> bench;

  Successions() { memset(words.begin(), 0, words.asBytes().size()); }
  void next() {
    script = Script();
    bench = nullptr;
    bench = kj::heap<DeviceBench>(
        ram, [this](kj::AsyncIoContext&) { return kj::heap<ScriptedEngine>(script); },
        words.asBytes());
    bench->attach();
  }
  void activate(uint64_t number, bool resumed, bool ownFault = false) {
    auto request = bench->activateRequest(F_VERSION_1, {&driver});
    request.setNumber(number);
    request.setResumed(resumed);
    request.setOwnFault(ownFault);
    bench->await(request.send().ignoreResult());
  }
  Virtqueue& ring() { return *script.queues[0].ring; }
  uint16_t add() { return driver.add({writable(0x1000, 16)}); }
};

TEST(DeviceActorSuccession, GoesOnWithWhatWasInFlight) {
  Successions device;
  uint16_t first = device.add();
  uint16_t second = device.add();
  device.next();
  device.activate(1, false);
  auto taken = device.ring().pop();
  EXPECT_EQ(KJ_ASSERT_NONNULL(taken).head(), first);

  device.next();
  device.activate(1, true, /*ownFault=*/true);
  auto again = device.ring().pop();
  EXPECT_EQ(KJ_ASSERT_NONNULL(again).head(), first);
  EXPECT_EQ(KJ_ASSERT_NONNULL(again).deaths(), 1);
  device.ring().push(kj::mv(KJ_ASSERT_NONNULL(again)), 0);
  auto next = device.ring().pop();
  EXPECT_EQ(KJ_ASSERT_NONNULL(next).head(), second);
  EXPECT_EQ(KJ_ASSERT_NONNULL(next).deaths(), 0);
}

// A process that died before it began leaves the journal of the driver before this one.
TEST(DeviceActorSuccession, StartsAtTheBeginningIfTheProcessBeforeNeverDid) {
  Successions device;
  uint16_t head = device.add();
  device.next();
  device.activate(1, false);
  EXPECT_TRUE(device.ring().pop() != nullptr);
  device.next();
  device.activate(2, true);
  auto chain = device.ring().pop();
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).head(), head);
  EXPECT_TRUE(device.ring().pop() == nullptr);
}

TEST(DeviceActorSuccession, ADriverThatBeginsAnewOwesNothingToTheOneBefore) {
  Successions device;
  device.add();
  device.next();
  device.activate(1, false);
  EXPECT_TRUE(device.ring().pop() != nullptr);
  device.bench->reset();
  FakeDriver fresh(device.ram, 8);
  auto request = device.bench->activateRequest(F_VERSION_1, {&fresh});
  request.setNumber(2);
  device.bench->await(request.send().ignoreResult());
  EXPECT_TRUE(device.ring().pop() == nullptr);
}

TEST(DeviceActorSuccession, AJournalThatMakesNoSenseAsksForAReset) {
  Successions device;
  device.add();
  device.next();
  device.activate(1, false);
  EXPECT_TRUE(device.ring().pop() != nullptr);
  device.words[0] = ~0ull;
  device.next();
  device.activate(1, true);
  device.bench->settle();
  EXPECT_EQ(device.script.starts, 0);
  EXPECT_EQ(device.bench->host.resetsAsked, 1);
  device.activate(2, false);
  EXPECT_EQ(device.script.starts, 1);
}

TEST(DeviceActorSuccession, NeedsJournals) {
  Stage stage;
  stage.bench.attach();
  auto request = stage.bench.activateRequest(F_VERSION_1, {&stage.driver});
  request.setResumed(true);
  EXPECT_ANY_THROW(stage.bench.await(request.send().ignoreResult()));
  EXPECT_EQ(stage.script.starts, 0);
}

// What only a broken broker does throws, and changes nothing.

TEST(DeviceActor, CallsOutOfOrderAreRefused) {
  Stage stage;
  EXPECT_ANY_THROW(stage.bench.activate(0, {&stage.driver}));
  EXPECT_ANY_THROW(stage.bench.consoleSize(1, 1));
  EXPECT_ANY_THROW(stage.bench.writeConfig(0, nullptr));
  stage.bench.attach();
  EXPECT_ANY_THROW(stage.bench.attach());
  stage.bench.activate(0, {&stage.driver});
  EXPECT_ANY_THROW(stage.bench.activate(0, {&stage.driver}));
  EXPECT_EQ(stage.script.starts, 1);
}

TEST(DeviceActor, FeaturesThatWereNotOfferedAreRefused) {
  Stage stage;
  stage.bench.attach();
  EXPECT_ANY_THROW(stage.bench.activate(2, {&stage.driver}));
  EXPECT_ANY_THROW(stage.bench.activate(1ull << 63, {&stage.driver}));
  EXPECT_EQ(stage.script.starts, 0);
}

TEST(DeviceActor, QueuesThatDoNotExistAreRefused) {
  Stage stage;
  stage.bench.attach();
  EXPECT_ANY_THROW(stage.bench.activate(0, {nullptr, nullptr, &stage.driver}));
  auto twice = stage.bench.device().activateRequest();
  auto queues = twice.initQueues(2);
  for (auto queue : queues) {
    queue.setSize(8);
    queue.setAvailableRing(0x1000);
    queue.setUsedRing(0x2000);
  }
  EXPECT_ANY_THROW(stage.bench.await(twice.send().ignoreResult()));
  EXPECT_EQ(stage.script.starts, 0);
}

}  // namespace
}  // namespace troupe::virtio
