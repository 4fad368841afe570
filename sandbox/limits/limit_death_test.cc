#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <string>
#include <vector>

#include "sandbox/limits/limit_report.h"
#include "sandbox/testing/jail_bench.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

constexpr uint64_t MIB = 1 << 20;

// The sample's profile with one more resource limit, or another value for it.
struct Limited {
  std::vector<ProfileLimit> limits;
  Profile profile = SAMPLE_PROFILE;

  Limited(int resource, uint64_t value) {
    for (size_t i = 0; i < SAMPLE_PROFILE.limitCount; i++) {
      if (SAMPLE_PROFILE.limits[i].resource != resource) limits.push_back(SAMPLE_PROFILE.limits[i]);
    }
    limits.push_back({resource, value});
    profile.limits = limits.data();
    profile.limitCount = limits.size();
  }
};

Actor start(JailBench& bench, const Profile& profile) {
  ActorOptions options;
  options.profile = profile;
  return bench.start(options);
}

// What is known of the limits of an actor that has ended.
std::string metBy(JailBench& bench, Actor& actor, const Profile& profile) {
  int status = actor.child->onExit().wait(bench.scope());
  std::string text;
  for (auto& met : limitsMet(profile, status, actor.child->lastUse(), nullptr))
    text += kj::str(met.deadly ? "! " : "- ", met.what, "\n").cStr();
  return text;
}

TEST(LimitDeath, CpuTimeIsTold) {
  JailBench bench;
  Limited limited(RLIMIT_CPU, 1);
  Actor actor = start(bench, limited.profile);
  EXPECT_TRUE(bench.tryCall(actor, "use-cpu") == nullptr);
  EXPECT_EQ("! it used 1 s of CPU time; its limit CPU is 1 s\n",
            metBy(bench, actor, limited.profile));
}

TEST(LimitDeath, ActorThatEndsWithAllItsFdsInUseIsSeen) {
  JailBench bench;
  Actor actor = start(bench, SAMPLE_PROFILE);
  KJ_IF_MAYBE (fds, bench.tryCall(actor, "use-fds")) {
    EXPECT_GT(*fds, 8);
  } else {
    ADD_FAILURE() << "the actor died";
  }
  bench.tryCall(actor, "exit");
  EXPECT_EQ(kj::str("- it had as many fds open as its limit NOFILE lets it: ",
                    fileLimit(SAMPLE_PROFILE), "\n"),
            metBy(bench, actor, SAMPLE_PROFILE).c_str());
}

TEST(LimitDeath, ActorThatEndsWithItsAddressSpaceUsedUpIsSeen) {
  JailBench bench;
  Limited limited(RLIMIT_AS, 64 * MIB);
  Actor actor = start(bench, limited.profile);
  KJ_IF_MAYBE (blocks, bench.tryCall(actor, "use-memory")) {
    EXPECT_GT(*blocks, 8);
  } else {
    ADD_FAILURE() << "the actor died";
  }
  bench.tryCall(actor, "exit");
  auto met = metBy(bench, actor, limited.profile);
  EXPECT_EQ(0u, met.find("- it had mapped ")) << met;
  EXPECT_NE(std::string::npos, met.find(" of the 64 MiB that its limit AS lets it\n")) << met;
}

TEST(LimitDeath, NothingIsSaidOfAnActorThatMetNone) {
  JailBench bench;
  Actor actor = start(bench, SAMPLE_PROFILE);
  bench.tryCall(actor, "exit");
  EXPECT_EQ("", metBy(bench, actor, SAMPLE_PROFILE));
  Actor other = start(bench, SAMPLE_PROFILE);
  other.child->kill();
  EXPECT_EQ("", metBy(bench, other, SAMPLE_PROFILE));
}

}  // namespace
}  // namespace troupe::sandbox::testing
