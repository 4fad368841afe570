#include "sandbox/limits/cgroup.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "sandbox/limits/limit_report.h"

namespace troupe::sandbox {
namespace {

constexpr uint32_t ALL = 0xf;
constexpr ProfileLayer MAY_LACK = {ProfileLayer::OPTIONAL, 0};
constexpr ProfileLayer MUST_HAVE = {ProfileLayer::REQUIRED, 0};

// A folder that looks like a mounted hierarchy, and this process's place in it.
class FakeHierarchy {
 public:
  explicit FakeHierarchy(const char* own, const char* mountRoot = "/") {
    char path[] = "/tmp/cgroup-test-XXXXXX";
    KJ_ASSERT(mkdtemp(path) != nullptr, path);
    root = path;
    mount = root + "/tree";
    mountInfo = root + "/mountinfo";
    ownGroups = root + "/cgroup";
    write(mountInfo, "23 1 0:20 / /proc rw - proc proc rw\n41 31 0:38 " + std::string(mountRoot) +
                         " " + mount + " rw,relatime - cgroup2 cgroup2 rw\n");
    write(ownGroups, std::string("4:memory:/elsewhere\n0::") + own + "\n");
  }
  ~FakeHierarchy() { EXPECT_EQ(0, system(("rm -rf " + root).c_str())); }

  // The controllers it has, those its groups have, its processes. One that this process may not
  // divide lacks what would have to be written.
  void group(const std::string& name, const char* controllers, const char* enabled,
             const std::string& processes) {
    mkdir((mount + name).c_str(), 0755);
    write(mount + name + "/cgroup.controllers", controllers);
    write(mount + name + "/cgroup.subtree_control", enabled);
    write(mount + name + "/cgroup.procs", processes);
    if (!name.empty()) write(mount + name + "/cgroup.type", "domain\n");
  }
  void foreignGroup(const std::string& name, const char* controllers) {
    mkdir((mount + name).c_str(), 0755);
    write(mount + name + "/cgroup.controllers", controllers);
  }

  CgroupView view(bool asRoot) const { return {mountInfo.c_str(), ownGroups.c_str(), asRoot}; }
  std::string folder(const std::string& group) const { return mount + group; }

 private:
  static void write(const std::string& path, const std::string& text) {
    FILE* file = fopen(path.c_str(), "w");
    ASSERT_NE(nullptr, file);
    fputs(text.c_str(), file);
    fclose(file);
  }

  std::string root, mount, mountInfo, ownGroups;
};

std::string self() {
  return std::to_string(getpid()) + "\n";
}

CgroupGround groundIn(const FakeHierarchy& tree, bool asRoot) {
  auto found = findCgroupGround(ALL, tree.view(asRoot));
  if (found.is<CgroupShortage>()) {
    ADD_FAILURE() << found.get<CgroupShortage>().reason.cStr();
    return {};
  }
  return kj::mv(found.get<CgroupGround>());
}

CgroupShortage shortageIn(const FakeHierarchy& tree, bool asRoot) {
  auto found = findCgroupGround(ALL, tree.view(asRoot));
  if (found.is<CgroupShortage>()) return kj::mv(found.get<CgroupShortage>());
  ADD_FAILURE() << found.get<CgroupGround>().folder().cStr();
  return {};
}

TEST(CgroupGround, RootTakesTheRootOfTheHierarchy) {
  FakeHierarchy tree("/session");
  tree.group("", "cpu io memory pids", "memory", "1\n2\n");
  tree.group("/session", "memory", "", "77\n");
  auto ground = groundIn(tree, true);
  EXPECT_EQ(tree.folder(""), ground.folder().cStr());
  EXPECT_EQ(ALL, ground.controllers);
  EXPECT_FALSE(ground.lived);
}

TEST(CgroupGround, RootLeavesAloneWhatWasNotDelegated) {
  FakeHierarchy tree("/service");
  tree.foreignGroup("", "memory pids");
  tree.group("/service", "memory pids", "", self());
  EXPECT_NE(nullptr, strstr(shortageIn(tree, true).mend.cStr(), "Delegate=yes"));
}

TEST(CgroupGround, GroupWhereThisProcessLivesAloneIsDivided) {
  FakeHierarchy tree("/scope");
  tree.foreignGroup("", "memory pids");
  tree.group("/scope", "memory pids", "", self());
  auto ground = groundIn(tree, false);
  EXPECT_EQ(tree.folder("/scope"), ground.folder().cStr());
  EXPECT_EQ(3u, ground.controllers);
  EXPECT_TRUE(ground.lived);
}

TEST(CgroupGround, GroupWithOtherProcessesIsLeftAlone) {
  FakeHierarchy tree("/scope");
  tree.foreignGroup("", "memory pids");
  tree.group("/scope", "memory pids", "", self() + "1\n");
  auto shortage = shortageIn(tree, false);
  EXPECT_NE(nullptr, strstr(shortage.reason.cStr(), "other processes live in"))
      << shortage.reason.cStr();
  EXPECT_NE(nullptr, strstr(shortage.mend.cStr(), "Delegate=yes"));
}

TEST(CgroupGround, ForeignGroupIsAShortage) {
  FakeHierarchy tree("/session");
  tree.foreignGroup("", "memory pids");
  tree.foreignGroup("/session", "memory pids");
  EXPECT_EQ("neither " + tree.folder("/session") + " nor a group above it may be divided by you",
            shortageIn(tree, false).reason.cStr());
}

TEST(CgroupGround, GroupAboveThatPassesControllersOnIsTaken) {
  FakeHierarchy tree("/mine/shell");
  tree.foreignGroup("", "memory pids");
  tree.group("/mine", "memory pids", "memory pids", "");
  tree.group("/mine/shell", "memory pids", "", self() + "1\n");
  auto ground = groundIn(tree, false);
  EXPECT_EQ(tree.folder("/mine"), ground.folder().cStr());
  EXPECT_FALSE(ground.lived);
}

TEST(CgroupGround, HierarchyWithoutControllersIsAShortage) {
  FakeHierarchy tree("/");
  tree.group("", "hugetlb", "", "1\n");
  auto shortage = shortageIn(tree, false);
  EXPECT_NE(nullptr,
            strstr(shortage.reason.cStr(), "has none of the controllers memory, pids, cpu, io"))
      << shortage.reason.cStr();
  EXPECT_EQ(tree.folder("/cgroup.controllers"), shortage.see.cStr() + 4);  // "cat …"
}

TEST(CgroupGround, ControllersThatAreMissingAreNamed) {
  CgroupGround ground = {kj::str("/sys/fs/cgroup"), nullptr, kj::str("/a"), 1, false};
  auto shortage = shortageOf(ground, ALL);
  EXPECT_STREQ("groups in /sys/fs/cgroup/a cannot have the controllers pids, cpu, io",
               shortage.reason.cStr());
}

TEST(CgroupGround, NoHierarchyIsAShortage) {
  auto found = findCgroupGround(ALL, {"/dev/null", "/dev/null", true});
  ASSERT_TRUE(found.is<CgroupShortage>());
  EXPECT_STREQ("this machine has mounted no control groups of version 2",
               found.get<CgroupShortage>().reason.cStr());
}

TEST(CgroupGround, GroupOutsideTheMountIsAShortage) {
  FakeHierarchy tree("/other", "/container");
  tree.group("", "memory", "memory", "");
  EXPECT_NE(nullptr, strstr(shortageIn(tree, false).reason.cStr(), "does not show"));
}

// A profile with limits and nothing else.
struct Limited {
  std::vector<ProfileCgroupLimit> limits;
  std::vector<ProfileIoLimit> io;
  std::vector<ProfileLimit> resources;
  ProfileFd disk = {"disk", 17, 1, "file", true, false, false, false};

  Profile profile(ProfileMemory::Access access = ProfileMemory::NONE) const {
    Profile profile = {};
    profile.actor = "sample";
    profile.source = "sample.profile";
    profile.fds = &disk;
    profile.fdCount = 1;
    profile.limits = resources.data();
    profile.limitCount = resources.size();
    profile.layers.memory.access = access;
    profile.layers.cgroupLimits = limits.data();
    profile.layers.cgroupLimitCount = limits.size();
    profile.layers.ioLimits = io.data();
    profile.layers.ioLimitCount = io.size();
    return profile;
  }
};

std::string text(kj::ArrayPtr<const CgroupSetting> settings) {
  std::string text;
  for (auto& setting : settings)
    text += kj::str(setting.file, "=", setting.value, setting.unfit, ";").cStr();
  return text;
}

constexpr uint64_t MIB = 1 << 20;

TEST(CgroupLimits, AreWrittenAsTheKernelReadsThem) {
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, 8 * MIB + 1, MAY_LACK},
                   {ProfileCgroupLimit::PIDS_MAX, 3, MAY_LACK},
                   {ProfileCgroupLimit::CPU_MAX, 250, MAY_LACK}},
                  {},
                  {}};
  EXPECT_EQ("memory.max=8392704;memory.swap.max=0;pids.max=3;cpu.max=250000 100000;",
            text(cgroupSettings(limited.profile(), 512 * MIB, nullptr)));
  EXPECT_EQ(7u, controllersOf(limited.profile()));
}

TEST(CgroupLimits, GuestRamAndItsTablesCountForWhoMapsIt) {
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, 8 * MIB, MAY_LACK}}, {}, {}};
  EXPECT_EQ("memory.max=" + std::to_string((8 + 512 + 16) * MIB) +
                ";memory.swap.max=" + std::to_string((512 + 16) * MIB) + ";",
            text(cgroupSettings(limited.profile(ProfileMemory::ALL), 512 * MIB, nullptr)));
}

TEST(CgroupLimits, DiskThatIsKeptInMemoryCounts) {
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, 8 * MIB, MAY_LACK}}, {}, {}};
  int memory = memfd_create("disk", 0);
  ASSERT_EQ(0, ftruncate(memory, 64 * MIB));
  auto settings = cgroupSettings(limited.profile(), 0,
                                 kj::arr(HandedFd{"disk", 0, memory}, HandedFd{"ram", 0, memory}));
  EXPECT_EQ("memory.max=" + std::to_string(72 * MIB) +
                ";memory.swap.max=" + std::to_string(64 * MIB) + ";",
            text(settings));
  close(memory);
}

TEST(CgroupLimits, MemoryThatAnFdMayComeToUseCounts) {
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, 8 * MIB, MAY_LACK}}, {}, {}};
  auto settings = cgroupSettings(limited.profile(), 0, kj::arr(HandedFd{"ram", 0, 0, 16 * MIB}));
  EXPECT_EQ("memory.max=" + std::to_string(24 * MIB) +
                ";memory.swap.max=" + std::to_string(16 * MIB) + ";",
            text(settings));
}

TEST(CgroupLimits, IoIsThatOfTheDiskBehindTheFile) {
  Limited limited{{}, {{"disk", 1000, 0, 0, 20, MAY_LACK}}, {}};
  int null = open("/proc/self/exe", O_RDONLY);
  struct stat info;
  ASSERT_EQ(0, fstat(null, &info));
  auto settings =
      cgroupSettings(limited.profile(), 0, kj::arr(HandedFd{"disk", 0, null}, HandedFd{"x", 0, 0}));
  ASSERT_EQ(1u, settings.size());
  if (settings[0].unfit.size() == 0) {
    EXPECT_NE(nullptr, strstr(settings[0].value.cStr(), " rbps=1000 wbps=max riops=max wiops=20"));
  }
  int memory = memfd_create("disk", 0);
  settings = cgroupSettings(limited.profile(), 0, kj::arr(HandedFd{"disk", 0, memory}));
  EXPECT_STREQ("the file \"disk\" is on no disk of its own", settings[0].unfit.cStr());
  close(null);
  close(memory);
}

// Where there is no ground: what the profile says of a missing limit decides.

TEST(VmCgroups, OptionalLimitsThatAreMissingAreNamed) {
  FakeHierarchy tree("/");
  tree.group("", "hugetlb", "", "1\n");
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, MIB, MAY_LACK},
                   {ProfileCgroupLimit::PIDS_MAX, 3, MAY_LACK}},
                  {},
                  {}};
  VmCgroups groups("web", controllersOf(limited.profile()), 0, tree.view(false));
  EXPECT_TRUE(groups.add("blk0", limited.profile(), nullptr) == nullptr);
  EXPECT_TRUE(groups.add("blk1", limited.profile(), nullptr) == nullptr);
  EXPECT_EQ("memory_max, pids_max: the hierarchy of version 2 at " + tree.folder("") +
                " has none of the controllers memory, pids",
            groups.missing().cStr());
}

TEST(VmCgroups, RequiredLimitThatIsMissingStopsTheStart) {
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, MIB, MUST_HAVE}}, {}, {}};
  VmCgroups groups("web", controllersOf(limited.profile()), 0, {"/dev/null", "/dev/null", true});
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(
                              [&]() { groups.add("blk0", limited.profile(), nullptr); })) {
    auto said = exception->getDescription();
    EXPECT_TRUE(
        said.startsWith("TRP-jail-040: blk0 cannot have the limit memory_max that its profile "
                        "requires: this machine has mounted no control groups of version 2"))
        << said.cStr();
    EXPECT_NE(nullptr, strstr(said.cStr(), "\n  see: grep cgroup /proc/mounts\n  mend: boot with "))
        << said.cStr();
  } else {
    ADD_FAILURE() << "nothing was thrown";
  }
}

TEST(VmCgroups, ProfileWithoutLimitsMissesNothing) {
  Limited limited;
  VmCgroups groups("web", 0, 0, {"/dev/null", "/dev/null", true});
  EXPECT_TRUE(groups.add("blk0", limited.profile(), nullptr) == nullptr);
  EXPECT_EQ(0u, groups.missing().size());
}

TEST(MemoryOfActors, ProcessesThatLiveAtOnceCountEach) {
  MemoryOfActors actors;
  actors.begin("blk0", 10, true);
  actors.begin("rng0", 3, true);
  EXPECT_EQ(13u, KJ_ASSERT_NONNULL(actors.total()));
  actors.end("blk0");
  actors.begin("blk0", 10, true);  // takes the place of one that has ended
  EXPECT_EQ(13u, KJ_ASSERT_NONNULL(actors.total()));
  actors.begin("blk0", 10, true);  // stands beside it
  EXPECT_EQ(23u, KJ_ASSERT_NONNULL(actors.total()));
  actors.end("blk0");
  actors.begin("blk0", 12, true);
  EXPECT_EQ(27u, KJ_ASSERT_NONNULL(actors.total()));
  actors.begin("front", 0, false);
  EXPECT_TRUE(actors.total() == nullptr);
}

// Groups of VMs, each with its lock, in a hierarchy that root divides.
class Groups {
 public:
  Groups() : tree("/") {
    tree.group("", "cpu io memory pids", "memory", "1\n2\n");
    make("/troupe");
  }
  void make(const std::string& name) { ASSERT_EQ(0, mkdir(tree.folder(name).c_str(), 0755)); }
  bool has(const std::string& name) { return access(tree.folder(name).c_str(), F_OK) == 0; }
  // A process that holds the group's lock until it is killed.
  pid_t own(const std::string& name) {
    int ready[2];
    KJ_SYSCALL(pipe(ready));
    pid_t owner = fork();
    if (owner == 0) {
      int folder = open(tree.folder(name).c_str(), O_RDONLY | O_DIRECTORY);
      if (folder < 0 || flock(folder, LOCK_EX | LOCK_NB) != 0) _exit(1);
      if (write(ready[1], "!", 1) != 1) _exit(1);
      for (;;)
        pause();
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(1, read(ready[0], &byte, 1));
    close(ready[0]);
    return owner;
  }
  static void end(pid_t owner) {
    kill(owner, SIGKILL);
    EXPECT_EQ(owner, waitpid(owner, nullptr, 0));
  }
  std::string collect() {
    std::string removed;
    for (auto& path : removeDeadGroups(tree.view(true)))
      removed += std::string(path.slice(tree.folder("").size()).cStr()) + " ";
    return removed;
  }
  std::string folder(const std::string& name) { return tree.folder(name); }

 private:
  FakeHierarchy tree;
};

TEST(DeadGroups, OfAKilledVmGoWithAllThatIsInThem) {
  Groups groups;
  for (auto name : {"/troupe/vm-web-1", "/troupe/vm-web-1/broker", "/troupe/vm-web-1/blk0",
                    "/troupe/vm-web-1/blk0-1", "/supervisor-1"}) {
    groups.make(name);
  }
  EXPECT_EQ("/troupe/vm-web-1 /supervisor-1 /troupe ", groups.collect());
  EXPECT_FALSE(groups.has("/troupe"));
  EXPECT_EQ("", groups.collect());
}

TEST(DeadGroups, NeverThoseOfAVmWhoseOwnerLives) {
  Groups groups;
  groups.make("/troupe/vm-web-1");
  groups.make("/troupe/vm-web-1/blk0");
  groups.make("/troupe/vm-web-2");
  pid_t owner = groups.own("/troupe/vm-web-1");
  EXPECT_EQ("/troupe/vm-web-2 ", groups.collect());
  EXPECT_TRUE(groups.has("/troupe/vm-web-1/blk0"));
  // Stopped is not dead.
  kill(owner, SIGSTOP);
  EXPECT_EQ("", groups.collect());
  EXPECT_TRUE(groups.has("/troupe/vm-web-1/blk0"));
  Groups::end(owner);
  EXPECT_EQ("/troupe/vm-web-1 /troupe ", groups.collect());
}

TEST(DeadGroups, NothingThatIsNotOurs) {
  Groups groups;
  groups.make("/elsewhere");
  groups.make("/troupe/other");
  groups.make("/troupe/vm-full-1");
  groups.make("/troupe/vm-full-1/blk0");
  // As in a group in which somebody made another one.
  groups.make("/troupe/vm-full-1/blk0/more");
  ASSERT_EQ(
      0, symlink(groups.folder("/elsewhere").c_str(), groups.folder("/troupe/vm-link-1").c_str()));
  EXPECT_EQ("", groups.collect());
  for (auto name : {"/elsewhere", "/troupe/other", "/troupe/vm-full-1/blk0/more"})
    EXPECT_TRUE(groups.has(name)) << name;
}

// What is said of an actor's end.

constexpr int KILLED = 9, FAILED = 1 << 8, QUIET = 0;

std::string said(const Profile& profile, int status, LastUse use, CgroupAccount account) {
  std::string text;
  for (auto& met : limitsMet(profile, status, use, account))
    text += kj::str(met.deadly ? "! " : "- ", met.what, " | ", met.remedy, "\n").cStr();
  return text;
}

TEST(LimitReport, OwnMemoryLimit) {
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, 8 * MIB, MAY_LACK}}, {}, {}};
  CgroupAccount account = {1, 1, 0, 0, 512 * MIB, 600 * MIB};
  EXPECT_EQ(
      "! it used all of its memory_max of 8 MiB | cgroup { memory_max { value: 13631488 } }\n",
      said(limited.profile(), KILLED, {}, account));
  EXPECT_EQ(
      "! it used all of its memory_max of 8 MiB beside 512 MiB of guest RAM | cgroup { "
      "memory_max { value: 13631488 } }\n",
      said(limited.profile(ProfileMemory::ALL), KILLED, {}, account));
  EXPECT_EQ(
      "- it came to all of its memory_max of 8 MiB | cgroup { memory_max { value: 13631488 } }\n",
      said(limited.profile(), FAILED, {}, account));
}

TEST(LimitReport, MemoryLimitOfTheVmAndOfTheHost) {
  Limited limited{{{ProfileCgroupLimit::MEMORY_MAX, 8 * MIB, MAY_LACK}}, {}, {}};
  EXPECT_NE(std::string::npos,
            said(limited.profile(), KILLED, {}, {1, 0, 1, 0, 512 * MIB, 600 * MIB})
                .find("! the actors of this VM together used all of the 600 MiB"));
  EXPECT_NE(std::string::npos,
            said(limited.profile(), KILLED, {}, {1, 0, 0, 0, 512 * MIB, 600 * MIB})
                .find("! the host, or a control group around the VM, had no memory left"));
}

TEST(LimitReport, RefusedThreads) {
  Limited limited{{{ProfileCgroupLimit::PIDS_MAX, 4, MAY_LACK}}, {}, {}};
  EXPECT_EQ(
      "- it was refused a process or a thread 3 times: its pids_max is 4 | cgroup { pids_max { "
      "value: 8 } }\n",
      said(limited.profile(), FAILED, {}, {0, 0, 0, 3, 0, 0}));
}

TEST(LimitReport, ResourceLimits) {
  Limited limited{{}, {}, {{RLIMIT_CPU, 5}, {RLIMIT_NOFILE, 24}, {RLIMIT_AS, 256 * MIB}}};
  CgroupAccount none = {};
  EXPECT_EQ(
      "! it used 5 s of CPU time; its limit CPU is 5 s | limit { resource: \"CPU\" value: 8 }\n",
      said(limited.profile(), KILLED, {3, MIB, 5004}, none));
  EXPECT_EQ(
      "- it had as many fds open as its limit NOFILE lets it: 24 | limit { resource: \"NOFILE\" "
      "value: 40 }\n",
      said(limited.profile(), FAILED, {24, MIB, 10}, none));
  EXPECT_EQ(
      "- it had mapped 250 MiB of the 256 MiB that its limit AS lets it | limit { resource: "
      "\"AS\" value: 403701760 }\n",
      said(limited.profile(), FAILED, {3, 250 * MIB, 10}, none));
  EXPECT_EQ("", said(limited.profile(), QUIET, {24, 250 * MIB, 10}, none));
  EXPECT_EQ("", said(limited.profile(), KILLED, {3, MIB, 10}, none));
}

}  // namespace
}  // namespace troupe::sandbox
