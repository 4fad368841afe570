#include "sandbox/signal_flood.h"

#include <gtest/gtest.h>

namespace troupe::sandbox {
namespace {

using std::chrono::milliseconds;

// How many of `count` signals are too many, `pause` after one another.
uint32_t tooMany(uint32_t count, std::chrono::microseconds pause) {
  SignalFlood flood;
  SignalFlood::Clock::time_point now{std::chrono::hours(1)};
  uint32_t found = 0;
  for (uint32_t i = 0; i < count; i++, now += pause)
    found += flood.isTooMany(now);
  return found;
}

TEST(SignalFlood, IsMoreThanFourThousandInASecond) {
  EXPECT_EQ(tooMany(SignalFlood::MOST, std::chrono::microseconds(0)), 0u);
  EXPECT_EQ(tooMany(SignalFlood::MOST + 1, std::chrono::microseconds(0)), 1u);
  EXPECT_EQ(tooMany(SignalFlood::MOST + 1, std::chrono::microseconds(249)), 1u);
}

TEST(SignalFlood, IsNotWhatTakesLonger) {
  EXPECT_EQ(tooMany(10 * SignalFlood::MOST, std::chrono::microseconds(250)), 0u);
}

TEST(SignalFlood, EachSecondBeginsAnew) {
  SignalFlood flood;
  SignalFlood::Clock::time_point now{std::chrono::hours(1)};
  for (uint32_t i = 0; i < SignalFlood::MOST; i++)
    EXPECT_FALSE(flood.isTooMany(now));
  EXPECT_TRUE(flood.isTooMany(now + milliseconds(999)));
  EXPECT_FALSE(flood.isTooMany(now + milliseconds(1000)));
}

}  // namespace
}  // namespace troupe::sandbox
