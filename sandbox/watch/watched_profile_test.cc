#include "sandbox/watch/watched_profile.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <kj/string.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include "sandbox/filter_answer.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox {
namespace {

constexpr uint32_t I386 = AUDIT_ARCH_I386;
constexpr uint32_t X86_64 = AUDIT_ARCH_X86_64;

uint32_t answer(const Profile& profile, size_t filter, int number, uint64_t first = 0,
                uint32_t architecture = X86_64) {
  seccomp_data call = {};
  call.nr = number;
  call.arch = architecture;
  call.args[0] = first;
  return answerOf(profile.filters[filter], call);
}

size_t indexOf(const Profile& profile, kj::StringPtr stage) {
  for (size_t i = 0; i < profile.filterCount; i++) {
    if (stage == profile.filters[i].stage) return i;
  }
  ADD_FAILURE() << "no filter " << stage.cStr();
  return 0;
}

TEST(WatchedProfile, CountingStopsAtWhatIsAllowedAndRefusesWhatIsRefused) {
  WatchedProfile watched(SAMPLE_PROFILE, WatchMode::COUNT);
  for (size_t filter = 0; filter < SAMPLE_PROFILE.filterCount; filter++) {
    for (int number = 0; number < 500; number++) {
      for (uint64_t first : {0, 3, 16, 18}) {
        uint32_t before = answer(SAMPLE_PROFILE, filter, number, first);
        uint32_t after = answer(watched.profile(), filter, number, first);
        uint32_t wanted = before == SECCOMP_RET_ALLOW ? SECCOMP_RET_TRACE | (filter + 1) : before;
        ASSERT_EQ(wanted, after) << SAMPLE_PROFILE.filters[filter].stage << " " << number;
      }
    }
  }
}

TEST(WatchedProfile, CountingIsNoWeakerForOtherConventions) {
  WatchedProfile watched(SAMPLE_PROFILE, WatchMode::COUNT);
  for (size_t filter = 0; filter < SAMPLE_PROFILE.filterCount; filter++) {
    EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, answer(watched.profile(), filter, 20, 0, I386));
    EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, answer(watched.profile(), filter, 0x40000000 | SYS_read));
  }
}

TEST(WatchedProfile, ReportingRefusedCallsLeavesAllowedOnesAlone) {
  WatchedProfile watched(SAMPLE_PROFILE, WatchMode::REPORT_REFUSED);
  for (size_t filter = 0; filter < SAMPLE_PROFILE.filterCount; filter++) {
    for (int number = 0; number < 500; number++) {
      uint32_t before = answer(SAMPLE_PROFILE, filter, number, 3);
      uint32_t after = answer(watched.profile(), filter, number, 3);
      bool dies = before == SECCOMP_RET_KILL_PROCESS;
      ASSERT_EQ(dies ? SECCOMP_RET_TRACE | (filter + 1) : before, after) << number;
    }
  }
}

TEST(WatchedProfile, ReportingAllStopsAtEveryCall) {
  WatchedProfile watched(SAMPLE_PROFILE, WatchMode::REPORT_ALL);
  const Profile& profile = watched.profile();
  for (const char* stage : {"start", "ready", "run", "thread:worker"}) {
    size_t filter = indexOf(profile, stage);
    for (int number = 0; number < 500; number++) {
      if (number == SYS_clone3) continue;
      ASSERT_EQ(SECCOMP_RET_TRACE | (filter + 1), answer(profile, filter, number)) << number;
    }
    EXPECT_EQ(SECCOMP_RET_ERRNO | ENOSYS, answer(profile, filter, SYS_clone3));
  }
}

TEST(WatchedProfile, NoModeReportsCallsOfAnotherConvention) {
  for (WatchMode mode : {WatchMode::REPORT_ALL, WatchMode::REPORT_REFUSED}) {
    WatchedProfile watched(SAMPLE_PROFILE, mode);
    for (size_t filter = 0; filter < watched.profile().filterCount; filter++) {
      EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, answer(watched.profile(), filter, 20, 0, I386));
      EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, answer(watched.profile(), filter, 0x40000000 | SYS_read));
    }
  }
}

TEST(WatchedProfile, AllButTheFiltersStaysAsItIs) {
  WatchedProfile watched(SAMPLE_PROFILE, WatchMode::REPORT_ALL);
  EXPECT_EQ(SAMPLE_PROFILE.fds, watched.profile().fds);
  EXPECT_EQ(SAMPLE_PROFILE.fdCount, watched.profile().fdCount);
  EXPECT_EQ(SAMPLE_PROFILE.limits, watched.profile().limits);
  EXPECT_STREQ(SAMPLE_PROFILE.actor, watched.profile().actor);
}

}  // namespace
}  // namespace troupe::sandbox
