#include "devices/virtio/queue_counters.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::virtio {
namespace {

using testing::FakeDriver;
using testing::FakeRam;
using testing::readable;
using testing::writable;

constexpr uint16_t SIZE = 64;
constexpr RingFeatures FEATURES = {true, true};

struct Fixture {
  Fixture() : driver(ram, SIZE, FEATURES), memory(ram.memory()), counters(slot) {}

  uint16_t add() { return driver.add({readable(0x8000, 16), writable(0x9000, 64)}); }
  kj::Own<Virtqueue> queue() {
    return kj::heap<Virtqueue>(memory, driver.layout(), FEATURES, nullptr, UsedRing::IN_GUEST,
                               counters);
  }
  uint64_t timed() const {
    uint64_t sum = 0;
    for (uint64_t count : slot.waits)
      sum += count;
    return sum;
  }

  FakeRam ram{0x10000};
  FakeDriver driver;
  GuestMemory memory;
  CounterSlot slot = {};
  QueueCounters counters;
};

Chain pop(Virtqueue& queue) {
  auto chain = queue.pop();
  return kj::mv(KJ_REQUIRE_NONNULL(chain));
}

TEST(QueueCounters, ARequestIsInFlightUntilItIsReturnedAndThenCounted) {
  Fixture f;
  auto queue = f.queue();
  f.add();
  f.add();
  auto first = pop(*queue);
  auto second = pop(*queue);
  EXPECT_EQ(f.slot.inFlight, 2u);
  EXPECT_EQ(f.slot.requests, 0u);
  queue->push(kj::mv(first), 40);
  EXPECT_EQ(f.slot.inFlight, 1u);
  queue->push(kj::mv(second), 0);
  EXPECT_EQ(f.slot.inFlight, 0u);
  EXPECT_EQ(f.slot.requests, 2u);
  EXPECT_EQ(f.slot.fromGuestBytes, 32u);
  EXPECT_EQ(f.slot.toGuestBytes, 40u);
  EXPECT_EQ(f.slot.errors, 0u);
}

TEST(QueueCounters, ReadingARequestDoesNotChangeHowLargeItWas) {
  Fixture f;
  auto queue = f.queue();
  f.add();
  auto chain = pop(*queue);
  kj::byte copy[16];
  chain.readBytes(copy);
  queue->push(kj::mv(chain), 0);
  EXPECT_EQ(f.slot.fromGuestBytes, 16u);
}

TEST(QueueCounters, OneRequestOfSixteenIsTimed) {
  Fixture f;
  auto queue = f.queue();
  for (uint32_t i = 0; i < 10 * QueueCounters::TIMED_EACH; i++) {
    f.add();
    queue->push(pop(*queue), 0);
    queue->publish();
    f.driver.takeUsed();
  }
  EXPECT_EQ(f.timed(), 10u);
  EXPECT_GT(f.slot.waitNs, 0u);
}

TEST(QueueCounters, OneThatTakesLongIsTimedWhileOthersPass) {
  Fixture f;
  auto queue = f.queue();
  f.add();
  auto slow = pop(*queue);  // the first is timed
  for (uint32_t i = 0; i < 4 * QueueCounters::TIMED_EACH; i++) {
    f.add();
    queue->push(pop(*queue), 0);
    queue->publish();
    f.driver.takeUsed();
  }
  EXPECT_EQ(f.timed(), 0u);
  queue->push(kj::mv(slow), 0);
  EXPECT_EQ(f.timed(), 1u);
}

TEST(QueueCounters, WhatWasCountedOutlivesTheRingAndNothingIsInFlightWithoutOne) {
  Fixture f;
  {
    auto queue = f.queue();
    f.add();
    f.add();
    queue->push(pop(*queue), 8);
    pop(*queue);
    EXPECT_EQ(f.slot.inFlight, 1u);
  }
  EXPECT_EQ(f.slot.inFlight, 0u);
  EXPECT_EQ(f.slot.requests, 1u);
  QueueCounters successor(f.slot);
  successor.take(3, 1);
  successor.giveBack(3, 1, 1, 0);
  EXPECT_EQ(f.slot.requests, 2u);
}

TEST(QueueCounters, ARingThatBreaksIsOneError) {
  Fixture f;
  auto queue = f.queue();
  f.driver.makeAvailable(SIZE);  // no such head
  EXPECT_TRUE(queue->pop() == nullptr);
  EXPECT_TRUE(queue->pop() == nullptr);
  EXPECT_TRUE(queue->broken());
  EXPECT_EQ(f.slot.errors, 1u);
}

TEST(QueueCounters, EachWaitCountsBelowTheFirstBoundThatIsNotShorter) {
  EXPECT_EQ(waitIndex(0), 0u);
  for (uint32_t i = 0; i + 1 < CounterSlot::WAITS; i++) {
    EXPECT_EQ(waitIndex(waitBound(i)), i);
    EXPECT_EQ(waitIndex(waitBound(i) + 1), i + 1);
  }
  EXPECT_EQ(waitIndex(UINT64_MAX), CounterSlot::WAITS - 1);
}

}  // namespace
}  // namespace troupe::virtio
