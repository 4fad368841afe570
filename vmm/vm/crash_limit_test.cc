#include "vmm/vm/crash_limit.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

const auto START = kj::origin<kj::TimePoint>() + 1 * kj::HOURS;

TEST(CrashLimit, TheFifthCrashOfAMinuteIsOnceTooOften) {
  CrashLimit limit;
  for (int i = 0; i < 4; i++)
    EXPECT_FALSE(limit.crashed(START + i * kj::SECONDS)) << i;
  EXPECT_TRUE(limit.crashed(START + 59 * kj::SECONDS));
}

TEST(CrashLimit, OneThatCrashesEveryTwentySecondsGoesOnForEver) {
  CrashLimit limit;
  for (int i = 0; i < 1000; i++)
    EXPECT_FALSE(limit.crashed(START + i * 20 * kj::SECONDS)) << i;
}

TEST(CrashLimit, CrashesOfAnHourAgoDoNotCount) {
  CrashLimit limit;
  for (int i = 0; i < 4; i++)
    EXPECT_FALSE(limit.crashed(START));
  auto later = START + 1 * kj::HOURS;
  for (int i = 0; i < 4; i++)
    EXPECT_FALSE(limit.crashed(later));
  EXPECT_TRUE(limit.crashed(later));
}

}  // namespace
}  // namespace troupe
