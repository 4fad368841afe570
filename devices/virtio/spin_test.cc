#include "devices/virtio/spin.h"

#include <gtest/gtest.h>

namespace troupe::virtio {
namespace {

uint64_t now = 0;
int clockReads = 0;
uint64_t fakeClock() {
  ++clockReads;
  return now;
}
using Spin = AdaptiveSpin<fakeClock>;

constexpr uint64_t MICRO = 1000;
constexpr uint64_t MILLI = 1000 * MICRO;

// A queue that gets work `after` ns from now; each look takes 100 ns.
auto workAfter(uint64_t after) {
  return [when = now + after] {
    now += 100;
    return now >= when;
  };
}
bool never() {
  now += 100;
  return false;
}

TEST(AdaptiveSpin, FindsWorkThatComesInTime) {
  Spin spin(50);
  EXPECT_TRUE(spin.until(workAfter(40 * MICRO)));
  EXPECT_EQ(spin.budget(), 50 * MICRO);
}

TEST(AdaptiveSpin, GivesUpAfterItsBudget) {
  Spin spin(50);
  uint64_t start = now;
  EXPECT_FALSE(spin.until(workAfter(100 * MICRO)));
  EXPECT_GE(now - start, 50 * MICRO);
  EXPECT_LE(now - start, 52 * MICRO);
}

TEST(AdaptiveSpin, BusyQueueDoesNotLookAtTheClock) {
  Spin spin(50);
  clockReads = 0;
  for (int i = 0; i < 1000; i++)
    EXPECT_TRUE(spin.until([] { return true; }));
  EXPECT_EQ(clockReads, 0);
}

TEST(AdaptiveSpin, IdleQueueDecaysToNothing) {
  Spin spin(50);
  uint64_t spun = 0;
  for (int i = 0; i < 100; i++) {
    uint64_t start = now;
    EXPECT_FALSE(spin.until(never));
    spun += now - start;
    now += MILLI;  // somebody woke it for nothing, or for little
    spin.woken();
  }
  EXPECT_EQ(spin.budget(), 0);
  EXPECT_LE(spun, 120 * MICRO);  // 50 + 25 + 12 + 6 + 3 + 1.5, and one look each time
}

TEST(AdaptiveSpin, ShortSleepRestoresTheBudget) {
  Spin spin(50);
  while (spin.budget() > 0)
    EXPECT_FALSE(spin.until(never));
  EXPECT_FALSE(spin.until(never));
  now += 30 * MICRO;
  spin.woken();
  EXPECT_EQ(spin.budget(), 50 * MICRO);
  EXPECT_TRUE(spin.until(workAfter(40 * MICRO)));
}

TEST(AdaptiveSpin, LongSleepDoesNot) {
  Spin spin(50);
  while (spin.budget() > 0)
    EXPECT_FALSE(spin.until(never));
  EXPECT_FALSE(spin.until(never));
  now += 51 * MICRO;
  spin.woken();
  EXPECT_EQ(spin.budget(), 0);
}

TEST(AdaptiveSpin, LimitOfNothingNeverSpins) {
  Spin spin(0);
  int looks = 0;
  EXPECT_FALSE(spin.until([&] {
    ++looks;
    return false;
  }));
  spin.woken();
  EXPECT_EQ(looks, 1);
  EXPECT_EQ(spin.budget(), 0);
}

TEST(AdaptiveSpin, RealClockAdvances) {
  uint64_t before = monotonicNs();
  AdaptiveSpin<> spin(50);
  EXPECT_FALSE(spin.until([] { return false; }));
  EXPECT_GE(monotonicNs() - before, 50 * MICRO);
}

}  // namespace
}  // namespace troupe::virtio
