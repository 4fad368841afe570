// Needs a machine whose control groups of version 2 have all controllers, and the right to divide a
// group; TROUPE_TEST_LOOP_DISK names a file on a disk whose traffic can be limited.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <vector>

#include "sandbox/limits/limit_report.h"
#include "sandbox/limits/small_file.h"
#include "sandbox/testing/jail_bench.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

constexpr uint64_t MIB = 1 << 20;
constexpr ProfileLayer REQUIRED = {ProfileLayer::REQUIRED, 0};

// The sample's profile with limits of control groups, none of which may be missing.
struct Limited {
  std::vector<ProfileCgroupLimit> limits;
  std::vector<ProfileIoLimit> io;
  Profile profile = SAMPLE_PROFILE;

  explicit Limited(std::vector<ProfileCgroupLimit> limitsParam,
                   std::vector<ProfileIoLimit> ioParam = {})
      : limits(std::move(limitsParam)), io(std::move(ioParam)) {
    profile.layers.cgroupLimits = limits.data();
    profile.layers.cgroupLimitCount = limits.size();
    profile.layers.ioLimits = io.data();
    profile.layers.ioLimitCount = io.size();
  }
};

Limited ordinary() {
  return Limited({{ProfileCgroupLimit::MEMORY_MAX, 32 * MIB, REQUIRED},
                  {ProfileCgroupLimit::PIDS_MAX, 4, REQUIRED}});
}

// A VM of one actor.
struct Stage {
  JailBench bench;
  const Profile& profile;
  VmCgroups groups;
  kj::Own<ActorCgroup> group;
  Actor actor;

  explicit Stage(const Profile& profile, kj::Maybe<int> disk = nullptr)
      : profile(profile),
        groups("test", controllersOf(profile), 0),
        group(makeGroup(groups, profile, disk)),
        actor(start(bench, profile, group->fd(), disk)) {}

  ~Stage() { actor.child = nullptr; }

  static kj::Own<ActorCgroup> makeGroup(VmCgroups& groups, const Profile& profile,
                                        kj::Maybe<int> disk) {
    kj::Vector<HandedFd> fds;
    KJ_IF_MAYBE (fd, disk) {
      fds.add(HandedFd{"disk", 0, *fd});
    }
    return KJ_REQUIRE_NONNULL(groups.add("sample0", profile, fds), groups.missing());
  }

  static Actor start(JailBench& bench, const Profile& profile, int cgroup, kj::Maybe<int> disk) {
    ActorOptions options;
    options.profile = profile;
    options.cgroup = cgroup;
    options.disk = disk;
    return bench.start(options);
  }

  std::string file(const char* name) {
    KJ_IF_MAYBE (text, readSmallFile(kj::str(group->path(), "/", name))) {
      return text->cStr();
    }
    return "?";
  }

  std::string met() {
    int status = actor.child->onExit().wait(bench.scope());
    std::string text;
    for (auto& one : limitsMet(profile, status, actor.child->lastUse(), group->account()))
      text += kj::str(one.deadly ? "! " : "- ", one.what, " | ", one.remedy, "\n").cStr();
    return text;
  }

  std::vector<std::string> differences() {
    AttestOptions options;
    options.stage = sandbox::Stage::START;
    options.cgroup = *group;
    std::vector<std::string> found;
    for (auto& one : attest(profile, actor.child->pid(), options).differences)
      found.push_back(one.cStr());
    return found;
  }
};

bool exists(kj::StringPtr path) {
  struct stat info;
  return stat(path.cStr(), &info) == 0;
}

TEST(LimitedActor, IsInItsGroupWithItsLimitsFromTheStart) {
  Limited limited = ordinary();
  Stage stage(limited.profile);
  EXPECT_EQ(std::to_string(stage.actor.child->pid()) + "\n", stage.file("cgroup.procs"));
  EXPECT_EQ(std::to_string(32 * MIB) + "\n", stage.file("memory.max"));
  EXPECT_EQ("4\n", stage.file("pids.max"));
  EXPECT_EQ(std::vector<std::string>(), stage.differences());
}

TEST(LimitedActor, LimitThatWasChangedIsADifference) {
  Limited limited = ordinary();
  Stage stage(limited.profile);
  ASSERT_EQ(0, writeSmallFile(kj::str(stage.group->path(), "/pids.max"), "max"));
  EXPECT_EQ(std::vector<std::string>({"its limit pids.max is max; by its profile it is 4"}),
            stage.differences());
}

TEST(LimitedActor, OneThatLeftItsGroupIsADifference) {
  Limited limited = ordinary();
  Stage stage(limited.profile);
  auto other = kj::str(stage.groups.path(), "/elsewhere");
  ASSERT_EQ(0, mkdir(other.cStr(), 0755));
  ASSERT_EQ(0, writeSmallFile(kj::str(other, "/cgroup.procs"), kj::str(stage.actor.child->pid())));
  auto found = stage.differences();
  ASSERT_EQ(1u, found.size());
  EXPECT_EQ(0u, found[0].find("it is not in its control group /")) << found[0];
}

TEST(LimitedActor, MemoryBeyondItsLimitEndsItAndIsExplained) {
  Limited limited = ordinary();
  Stage stage(limited.profile);
  EXPECT_TRUE(stage.bench.tryCall(stage.actor, "use-memory") == nullptr);
  EXPECT_EQ(
      "! it used all of its memory_max of 32 MiB | cgroup { memory_max { value: 51380224 } }\n",
      stage.met());
}

TEST(LimitedActor, MemoryOfAllActorsTogetherIsLimited) {
  Limited limited = ordinary();
  Stage stage(limited.profile);
  ASSERT_EQ(0, writeSmallFile(kj::str(stage.group->path(), "/memory.max"), "max"));
  EXPECT_TRUE(stage.bench.tryCall(stage.actor, "use-memory") == nullptr);
  EXPECT_EQ(0u, stage.met().find("! the actors of this VM together used all of the 48 MiB"));
}

TEST(LimitedActor, ThreadsBeyondItsLimitAreRefusedAndCounted) {
  Limited limited = ordinary();
  Stage stage(limited.profile);
  KJ_IF_MAYBE (threads, stage.bench.tryCall(stage.actor, "use-threads")) {
    EXPECT_EQ(3, *threads);  // beside the first
  } else {
    ADD_FAILURE() << "the actor died";
  }
  EXPECT_EQ("4\n", stage.file("pids.current"));
  stage.actor.child->kill();
  EXPECT_EQ(
      "- it was refused a process or a thread once: its pids_max is 4 | cgroup { pids_max { "
      "value: 8 } }\n",
      stage.met());
}

TEST(LimitedActor, CpuTimeIsShared) {
  Limited limited({{ProfileCgroupLimit::CPU_MAX, 25, REQUIRED}});
  Stage stage(limited.profile);
  EXPECT_EQ("25000 100000\n", stage.file("cpu.max"));
  EXPECT_EQ(std::vector<std::string>(), stage.differences());
  auto request = stage.actor.sample.tryRequest();
  request.setCall("use-cpu");
  auto answer = request.send();
  // Until the kernel has held it back.
  auto& timer = stage.bench.io().provider->getTimer();
  while (numberAfter(stage.file("cpu.stat").c_str(), "nr_throttled") == 0)
    timer.afterDelay(20 * kj::MILLISECONDS).wait(stage.bench.scope());
}

TEST(LimitedActor, DiskTrafficIsThatOfTheDiskBehindTheFile) {
  const char* path = getenv("TROUPE_TEST_LOOP_DISK");
  ASSERT_NE(nullptr, path);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  kj::AutoCloseFd disk(fd);
  Limited limited({}, {{"disk", 1000000, 0, 0, 50, REQUIRED}});
  Stage stage(limited.profile, disk.get());
  auto io = stage.file("io.max");
  EXPECT_NE(std::string::npos, io.find(" rbps=1000000 wbps=max riops=max wiops=50")) << io;
  EXPECT_EQ(std::vector<std::string>(), stage.differences());
}

TEST(LimitedActor, NothingIsLeftBehind) {
  Limited limited = ordinary();
  kj::String folder;
  {
    Stage stage(limited.profile);
    folder = kj::str(stage.groups.path());
    EXPECT_TRUE(exists(folder));
  }
  EXPECT_FALSE(exists(folder));
}

// What a supervisor that was killed leaves, the next one there removes; what lives stays.
TEST(LimitedActor, GroupsOfADeadVmAreRemovedAndThoseOfALivingOneStay) {
  Limited limited = ordinary();
  int report[2];
  ASSERT_EQ(0, pipe(report));
  pid_t supervisor = fork();
  if (supervisor == 0) {
    Stage stage(limited.profile);
    auto path = stage.groups.path();
    ssize_t written = write(report[1], path.begin(), path.size());
    kill(getpid(), written > 0 ? SIGKILL : SIGTERM);
  }
  close(report[1]);
  char text[512] = {};
  ASSERT_GT(read(report[0], text, sizeof(text) - 1), 0);
  ASSERT_EQ(supervisor, waitpid(supervisor, nullptr, 0));
  kj::StringPtr dead = text;
  EXPECT_TRUE(exists(dead));

  VmCgroups living("living", controllersOf(limited.profile), 0);
  EXPECT_FALSE(exists(dead));
  VmCgroups next("next", controllersOf(limited.profile), 0);
  EXPECT_TRUE(exists(living.path()));
  EXPECT_TRUE(exists(next.path()));
}

// A figure, not a test: what a group costs a start.
TEST(LimitedActor, PrintsWhatItCostsToStartInAGroup) {
  using Clock = std::chrono::steady_clock;
  Limited limited = ordinary();
  auto measure = [&](bool grouped) {
    JailBench bench;
    VmCgroups groups("cost", controllersOf(limited.profile), 0);
    constexpr int COUNT = 20;
    auto begin = Clock::now();
    for (int i = 0; i < COUNT; i++) {
      kj::Maybe<kj::Own<ActorCgroup>> group;
      ActorOptions options;
      options.profile = limited.profile;
      if (grouped) {
        group = groups.add("sample0", limited.profile, nullptr);
        options.cgroup = KJ_ASSERT_NONNULL(group)->fd();
      }
      Actor actor = bench.start(options);
    }
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / COUNT;
  };
  measure(false);
  double without = measure(false), with = measure(true);
  printf("a start and an end: %.0f us without, %.0f us with a control group\n", without, with);
}

}  // namespace
}  // namespace troupe::sandbox::testing
