#include "sandbox/attest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "sandbox/testing/jail_bench.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

void enter(JailBench& bench, Actor& actor, kj::StringPtr stage) {
  auto request = actor.sample.enterRequest();
  request.setStage(stage);
  request.send().wait(bench.scope());
}

std::vector<std::string> differences(const Attestation& attestation) {
  std::vector<std::string> result;
  for (const kj::String& difference : attestation.differences)
    result.push_back(difference.cStr());
  return result;
}

const std::vector<std::string> NONE;

// What attestation finds once an actor whose jail lacks `leftOut` is ready.
std::vector<std::string> findings(uint32_t leftOut, Stage stage = Stage::READY) {
  JailBench bench(LaunchFaults{leftOut});
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  if (stage != Stage::START) enter(bench, actor, "ready");
  return differences(attest(SAMPLE_PROFILE, actor.child->pid(), {stage}));
}

void expectFindings(const std::vector<std::string>& found, const std::vector<std::string>& wanted) {
  std::string all;
  for (const std::string& one : found)
    all += one + "\n";
  ASSERT_EQ(wanted.size(), found.size()) << all;
  for (size_t i = 0; i < wanted.size(); i++) {
    EXPECT_NE(std::string::npos, found[i].find(wanted[i])) << found[i] << "\nlacks: " << wanted[i];
  }
}

TEST(Attest, FindsNothingInEachStage) {
  JailBench bench;
  auto disk = fileWith("sector");
  Actor actor = bench.start({"sample0", "", disk.get()});
  actor.sample.helloRequest().send().wait(bench.scope());
  pid_t pid = actor.child->pid();
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, pid, {Stage::START})));
  auto place = actor.sample.placeRequest();
  place.setIndex(1);
  place.setHandle(bench.event());
  place.send().wait(bench.scope());
  enter(bench, actor, "ready");
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, pid)));
  enter(bench, actor, "run");
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, pid, {Stage::RUN})));
}

TEST(Attest, FindsNothingInAThreadWithItsOwnFilter) {
  JailBench bench;
  Actor actor = bench.start();
  auto place = actor.sample.placeRequest();
  place.setHandle(bench.event());
  place.send().wait(bench.scope());
  actor.sample.startThreadRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, actor.child->pid())));
}

// Asked for both at once, the actor is through with the first before it begins the second: a thread
// without a filter of its own would get the process's, and die of it while it still starts.
TEST(Attest, FindsNothingInAThreadThatWasMadeJustBefore) {
  JailBench bench;
  Actor actor = bench.start();
  auto place = actor.sample.placeRequest();
  place.setHandle(bench.event());
  place.send().wait(bench.scope());
  auto making = actor.sample.startThreadRequest().send();
  auto entering = actor.sample.enterRequest();
  entering.setStage("ready");
  auto entered = entering.send();
  making.wait(bench.scope());
  entered.wait(bench.scope());
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, actor.child->pid())));
}

TEST(Attest, SiblingsShareNoNamespace) {
  JailBench bench;
  Actor one = bench.start({"sample1", "enter run at once"});
  Actor two = bench.start({"sample2", "enter run at once"});
  one.sample.helloRequest().send().wait(bench.scope());
  two.sample.helloRequest().send().wait(bench.scope());
  auto first = attest(SAMPLE_PROFILE, one.child->pid(), {Stage::RUN});
  auto siblings = kj::arrayPtr(&first.namespaces, 1);
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, two.child->pid(), {Stage::RUN, siblings})));
  // A process shares all seven with itself.
  auto again = attest(SAMPLE_PROFILE, one.child->pid(), {Stage::RUN, siblings});
  EXPECT_EQ(NAMESPACE_COUNT, again.differences.size());
}

TEST(Attest, FindsAnActorThatHasNotNarrowedItself) {
  JailBench bench;
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  expectFindings(differences(attest(SAMPLE_PROFILE, actor.child->pid())),
                 {"it has 1 system call filters; its profile makes that 2", "its fd 18 is pipe:[",
                  "its fd 19 is pipe:[", "its fd 20 is pipe:["});
}

TEST(Attest, FindsAProcessThatIsGone) {
  JailBench bench;
  Actor actor = bench.start();
  pid_t pid = actor.child->pid();
  actor.child->kill();
  actor.child->onExit().wait(bench.scope());
  expectFindings(differences(attest(SAMPLE_PROFILE, pid)), {"it has ended"});
}

TEST(Attest, FindsAnFdOfAnotherKind) {
  JailBench bench;
  int pipe[2];
  KJ_SYSCALL(pipe2(pipe, O_CLOEXEC));
  kj::AutoCloseFd reading(pipe[0]), writing(pipe[1]);
  Actor actor = bench.start({"sample0", "enter run at once", reading.get()});
  actor.sample.helloRequest().send().wait(bench.scope());
  expectFindings(differences(attest(SAMPLE_PROFILE, actor.child->pid())),
                 {"the profile's \"disk\" is of kind file"});
}

TEST(Attest, ErrorNumbersTheDifferences) {
  Attestation attestation = {kj::arr(kj::str("it has a"), kj::str("it has b")), {}, nullptr};
  try {
    requireAttested("blk0", attestation);
    FAIL();
  } catch (const kj::Exception& exception) {
    EXPECT_EQ(
        kj::StringPtr("TRP-jail-030: the jail of blk0 is not what its profile says, so the VM "
                      "is not started:\n  1. it has a\n  2. it has b"),
        exception.getDescription());
  }
}

// The filters, instruction by instruction. Reading them takes CAP_SYS_ADMIN.

// What attestation finds in `actor` when its filters were read.
std::vector<std::string> readFindings(JailBench& bench, Actor& actor, Stage stage = Stage::READY) {
  FilterReading reading = actor.child->readFilters().wait(bench.scope());
  EXPECT_EQ("", std::string(reading.refusal.cStr()));
  AttestOptions options{stage};
  options.filters = reading;
  options.traced = true;
  return differences(attest(SAMPLE_PROFILE, actor.child->pid(), options));
}

bool mayReadFilters() {
  return whyNoFilterReading().size() == 0;
}

TEST(AttestFilters, TellsWhyTheyCannotBeRead) {
  if (geteuid() == 0) GTEST_SKIP() << "root can read them";
  EXPECT_STREQ("that takes CAP_SYS_ADMIN", whyNoFilterReading().cStr());
  JailBench bench;
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  FilterReading reading = actor.child->readFilters().wait(bench.scope());
  EXPECT_NE(0u, reading.refusal.size());
}

TEST(AttestFilters, AreThoseOfTheProfileInEachStage) {
  if (!mayReadFilters()) GTEST_SKIP() << whyNoFilterReading().cStr();
  JailBench bench;
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  EXPECT_EQ(NONE, readFindings(bench, actor, Stage::START));
  auto place = actor.sample.placeRequest();
  place.setHandle(bench.event());
  place.send().wait(bench.scope());
  actor.sample.startThreadRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  EXPECT_EQ(NONE, readFindings(bench, actor));
  enter(bench, actor, "run");
  EXPECT_EQ(NONE, readFindings(bench, actor, Stage::RUN));
  // It was stopped in epoll_wait three times, and goes on.
  actor.sample.helloRequest().send().wait(bench.scope());
}

TEST(AttestFilters, ReadsAllThreadsInTurn) {
  if (!mayReadFilters()) GTEST_SKIP() << whyNoFilterReading().cStr();
  JailBench bench;
  Actor actor = bench.start();
  auto place = actor.sample.placeRequest();
  place.setHandle(bench.event());
  place.send().wait(bench.scope());
  actor.sample.startThreadRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  FilterReading reading = actor.child->readFilters().wait(bench.scope());
  ASSERT_EQ(2u, reading.threads.size());
  for (const ThreadFilters& thread : reading.threads)
    EXPECT_EQ(2u, thread.programs.size());
}

TEST(AttestFilters, FindsOneChangedInstruction) {
  if (!mayReadFilters()) GTEST_SKIP() << whyNoFilterReading().cStr();
  JailBench bench(LaunchFaults{LaunchFaults::ALTERED_FILTER});
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  // Mode and count are as they should be.
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, actor.child->pid())));
  expectFindings(readFindings(bench, actor),
                 {"it has a system call filter (1.) that is not its profile's: instruction "});
}

TEST(AttestFilters, FindsAThreadThatCouldNotBeStopped) {
  JailBench bench;
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  FilterReading nothing;
  AttestOptions options;
  options.filters = nothing;
  expectFindings(differences(attest(SAMPLE_PROFILE, actor.child->pid(), options)),
                 {"it could not be stopped to read its system call filters"});
}

TEST(AttestFilters, OfAnEndedActorAreNone) {
  JailBench bench;
  Actor actor = bench.start();
  actor.child->kill();
  actor.child->onExit().wait(bench.scope());
  EXPECT_EQ(0u, actor.child->readFilters().wait(bench.scope()).threads.size());
}

// Programs that are made up, since no actor takes them.
TEST(AttestFilters, FindsTheFilterOfAnotherThreadAndOneTwice) {
  JailBench bench;
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  auto program = [](kj::StringPtr stage) {
    for (size_t i = 0; i < SAMPLE_PROFILE.filterCount; i++) {
      const ProfileFilter& filter = SAMPLE_PROFILE.filters[i];
      if (stage == filter.stage) return kj::heapArray(filter.program, filter.length);
    }
    KJ_FAIL_REQUIRE("no such stage", stage);
  };
  auto findingsOf = [&](kj::StringPtr first, kj::StringPtr second, kj::StringPtr third) {
    FilterReading reading;
    reading.threads = kj::heapArray<ThreadFilters>(1);
    reading.threads[0] = {actor.child->pid(),
                          kj::arr(program(first), program(second), program(third))};
    AttestOptions options;
    options.filters = reading;
    return differences(attest(SAMPLE_PROFILE, actor.child->pid(), options));
  };
  EXPECT_EQ(NONE, findingsOf("start", "ready", "run"));
  expectFindings(findingsOf("start", "ready", "ready"), {"it has the filter of \"ready\" twice"});
  expectFindings(findingsOf("ready", "ready", "run"),
                 {"it has a system call filter (1.) that is not its profile's"});
  expectFindings(findingsOf("start", "ready", "thread:worker"),
                 {"it has a system call filter (3.) that is not its profile's"});
}

// Of this process, which has no jail: only what is said of one file counts.
TEST(AttestMemory, OfTheHostsIsThatPartOfAFileThatWasHandedOver) {
  char name[] = "/dev/shm/troupe-attest-XXXXXX";
  kj::AutoCloseFd file(mkstemp(name));
  KJ_DEFER(unlink(name));
  constexpr uint64_t PAGE = 4096;
  KJ_SYSCALL(ftruncate(file, 8 * PAGE));
  void* pointer = mmap(nullptr, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 4 * PAGE);
  ASSERT_NE(MAP_FAILED, pointer);
  KJ_DEFER(munmap(pointer, 2 * PAGE));
  struct stat info;
  KJ_SYSCALL(fstat(file, &info));
  file = nullptr;  // held open it would be another difference

  auto isAllowed = [&](uint64_t inode, FileRange range) {
    FileRange ranges[] = {range};
    SharedFile files[] = {{info.st_dev, inode, ranges}};
    AttestOptions options;
    options.hostMemory = files;
    auto seen = attest(SAMPLE_PROFILE, getpid(), options);
    bool differs = false;
    for (auto& difference : seen.differences)
      differs = differs || strstr(difference.cStr(), name) != nullptr;
    EXPECT_EQ(differs ? 0u : 1u, seen.hostMemory.size());
    return !differs;
  };
  EXPECT_TRUE(isAllowed(info.st_ino, {4 * PAGE, 2 * PAGE}));
  EXPECT_TRUE(isAllowed(info.st_ino, {0, 8 * PAGE}));
  EXPECT_FALSE(isAllowed(info.st_ino, {4 * PAGE, PAGE}));
  EXPECT_FALSE(isAllowed(info.st_ino, {5 * PAGE, 2 * PAGE}));
  EXPECT_FALSE(isAllowed(info.st_ino, {0, 5 * PAGE}));
  EXPECT_FALSE(isAllowed(info.st_ino + 1, {0, 8 * PAGE}));
}

// Whoever traces an actor can make it do anything.

TEST(AttestTracer, FindsThatNobodyTracesIt) {
  JailBench bench(LaunchFaults{LaunchFaults::EXIT_REPORT});
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  EXPECT_FALSE(actor.child->isTraced());
  EXPECT_EQ(NONE, differences(attest(SAMPLE_PROFILE, actor.child->pid())));
  AttestOptions options;
  options.traced = true;
  expectFindings(differences(attest(SAMPLE_PROFILE, actor.child->pid(), options)),
                 {"it is traced by nobody, not by "});
}

TEST(AttestTracer, FindsAForeignTracer) {
  JailBench bench(LaunchFaults{LaunchFaults::EXIT_REPORT});
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  enter(bench, actor, "ready");
  pid_t victim = actor.child->pid();
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
  kj::AutoCloseFd reading(ends[0]), writing(ends[1]);
  pid_t stranger = fork();
  if (stranger == 0) {
    char result = ptrace(PTRACE_SEIZE, victim, 0, 0) == 0 ? 'y' : 'n';
    (void)!write(writing, &result, 1);
    pause();
    _exit(0);
  }
  char result = 0;
  KJ_SYSCALL(read(reading, &result, 1));
  auto found = differences(attest(SAMPLE_PROFILE, victim));
  kill(stranger, SIGKILL);
  waitpid(stranger, nullptr, 0);
  // A jailed actor of an ordinary user is not his to trace once it has a user namespace of its own
  // and may not be dumped.
  if (result == 'n') GTEST_SKIP() << "nobody may trace it";
  expectFindings(found, {"it is traced by process " + std::to_string(stranger) + ", not by "});
}

// Each layer left out in turn.

using Fault = LaunchFaults;

TEST(AttestFinds, MissingUserNamespace) {
  if (geteuid() != 0) {
    // Nothing else of a jail can be made then.
    EXPECT_ANY_THROW(findings(Fault::USER_NAMESPACE));
    return;
  }
  expectFindings(findings(Fault::USER_NAMESPACE), {"its user namespace is the host's ("});
}

TEST(AttestFinds, MissingPidNamespace) {
  expectFindings(findings(Fault::PID_NAMESPACE), {"its pid namespace is the host's ("});
}

TEST(AttestFinds, MissingNetNamespace) {
  expectFindings(findings(Fault::NET_NAMESPACE), {"its net namespace is the host's ("});
}

TEST(AttestFinds, MissingMountNamespace) {
  expectFindings(findings(Fault::MOUNT_NAMESPACE),
                 {"its mnt namespace is the host's (", "its root is not empty", "it sees "});
}

TEST(AttestFinds, MissingIpcNamespace) {
  expectFindings(findings(Fault::IPC_NAMESPACE), {"its ipc namespace is the host's ("});
}

TEST(AttestFinds, MissingUtsNamespace) {
  expectFindings(findings(Fault::UTS_NAMESPACE), {"its uts namespace is the host's ("});
}

TEST(AttestFinds, MissingCgroupNamespace) {
  expectFindings(findings(Fault::CGROUP_NAMESPACE), {"its cgroup namespace is the host's ("});
}

TEST(AttestFinds, RootThatIsNotEmpty) {
  expectFindings(findings(Fault::EMPTY_ROOT), {"its root is not empty: it has ", "it sees "});
}

TEST(AttestFinds, WritableRoot) {
  expectFindings(findings(Fault::READ_ONLY_ROOT), {"its root is writable"});
}

TEST(AttestFinds, KeptCapabilities) {
  expectFindings(
      findings(Fault::CAPABILITIES | Fault::BOUNDING_SET),
      {"CapInh is 0000000000002000, not 0", "CapPrm is 0000000000002000, not 0",
       "CapEff is 0000000000002000, not 0", "CapBnd is ", "CapAmb is 0000000000002000, not 0"});
}

TEST(AttestFinds, KeptBoundingSet) {
  expectFindings(findings(Fault::BOUNDING_SET), {"it has capabilities: CapBnd is "});
}

TEST(AttestFinds, MissingNoNewPrivileges) {
  // Without it the kernel takes no filter from a process that has no capabilities.
  expectFindings(findings(Fault::NO_NEW_PRIVILEGES, Stage::START),
                 {"it has seccomp mode 0", "NoNewPrivs is 0, not 1"});
}

TEST(AttestFinds, MissingStartFilter) {
  expectFindings(findings(Fault::SECCOMP),
                 {"it has 1 system call filters; its profile makes that 2"});
}

TEST(AttestFinds, MissingLimits) {
  expectFindings(findings(Fault::LIMITS),
                 {"its limit AS is ", "its limit CORE is ", "its limit NOFILE is "});
}

TEST(AttestFinds, ForgottenFd) {
  int fd = open("/dev/null", O_RDONLY);  // not close-on-exec
  int high = fcntl(fd, F_DUPFD, 100);
  close(fd);
  expectFindings(findings(Fault::CLOSED_FDS),
                 {"its fd " + std::to_string(high) + " (/dev/null) is not in its profile"});
  close(high);
}

TEST(AttestFinds, HostIdOfRoot) {
  if (geteuid() != 0) GTEST_SKIP() << "an ordinary user's actors have its id";
  expectFindings(findings(Fault::OWN_ID), {"it has Uid 0 0 0 0 on the host, not 1879",
                                           "it has Gid 0 0 0 0 on the host, not 1879"});
}

}  // namespace
}  // namespace troupe::sandbox::testing
