#include "devices/net/driver_notice.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>

#include "devices/virtio/testing/ring_bench.h"

namespace troupe::net {
namespace {

constexpr uint32_t SHOW_AFTER = 4;
constexpr uint64_t AT_ONCE = 0;
constexpr uint64_t NEVER = uint64_t(1) << 62;

struct Bench {
  explicit Bench(uint64_t pauseNs) : notice(ring.queue, call, SHOW_AFTER, pauseNs) {}

  void push(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
      ring.driver.add({ring.driver.writableBuffer(64)});
      ring.queue.push(KJ_ASSERT_NONNULL(ring.queue.pop()), 0);
      notice.pushed();
    }
  }
  // The driver takes what it was shown and goes to sleep: it wants to hear of the next chain.
  void sleep() {
    while (ring.driver.takeUsed() != nullptr) {
    }
    ring.driver.wantInterrupts(true);
  }
  // How often it was interrupted since this was last asked.
  uint64_t interrupts() {
    eventfd_t count = 0;
    return eventfd_read(call, &count) == 0 ? count : 0;
  }

  virtio::testing::Ring ring{256};
  kj::AutoCloseFd call{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  DriverNotice notice;
};

TEST(DriverNotice, ShowsGroupsAndAtTheEndTheRest) {
  Bench bench(AT_ONCE);
  bench.ring.driver.wantInterrupts(false);
  bench.push(SHOW_AFTER - 1);
  EXPECT_EQ(bench.ring.driver.usedIndex(), 0);
  bench.push(1);
  EXPECT_EQ(bench.ring.driver.usedIndex(), SHOW_AFTER);
  bench.push(1);
  bench.notice.tellAll();
  EXPECT_EQ(bench.ring.driver.usedIndex(), SHOW_AFTER + 1);
}

TEST(DriverNotice, WakesADriverThatSleepsWithTheFirstGroup) {
  Bench bench(NEVER);
  bench.sleep();
  bench.push(SHOW_AFTER);
  EXPECT_EQ(bench.interrupts(), 1);
}

TEST(DriverNotice, WakesADriverThatFellAsleepAfterItWasShownAGroup) {
  Bench bench(AT_ONCE);
  bench.ring.driver.wantInterrupts(false);
  bench.push(SHOW_AFTER);
  bench.sleep();
  bench.push(1);
  bench.notice.tellAll();
  EXPECT_EQ(bench.interrupts(), 1);
}

// Between its look at the ring and its wish for interrupts a group was shown, which it has not
// seen.
TEST(DriverNotice, AGroupThatADriverFellAsleepOverIsToldAtTheEnd) {
  Bench bench(NEVER);
  bench.ring.driver.wantInterrupts(false);
  bench.push(SHOW_AFTER);
  bench.ring.driver.wantInterrupts(true);
  bench.notice.tellAll();
  EXPECT_EQ(bench.interrupts(), 1);
}

TEST(DriverNotice, DoesNotInterruptAgainWhileThePauseLastsButAtTheEnd) {
  Bench bench(NEVER);
  bench.sleep();
  bench.push(SHOW_AFTER);
  EXPECT_EQ(bench.interrupts(), 1);
  bench.sleep();
  bench.push(10 * SHOW_AFTER);
  EXPECT_EQ(bench.interrupts(), 0);
  bench.notice.tellAll();
  EXPECT_EQ(bench.interrupts(), 1);
}

TEST(DriverNotice, InterruptsWithEachGroupThatIsWaitedForOnceThePauseIsOver) {
  Bench bench(AT_ONCE);
  for (int i = 0; i < 3; i++) {
    bench.sleep();
    bench.push(SHOW_AFTER);
    EXPECT_EQ(bench.interrupts(), 1);
  }
}

TEST(DriverNotice, LeavesADriverAloneThatWantsNoInterrupts) {
  Bench bench(AT_ONCE);
  bench.ring.driver.wantInterrupts(false);
  bench.push(10 * SHOW_AFTER + 1);
  bench.notice.tellAll();
  bench.notice.tellAll();
  EXPECT_EQ(bench.interrupts(), 0);
}

}  // namespace
}  // namespace troupe::net
