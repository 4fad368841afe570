#include "sandbox/launcher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/landlock.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/testing/jail_bench.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

std::string describeException(kj::FunctionParam<void()> action) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { action(); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

void enter(JailBench& bench, Actor& actor, kj::StringPtr stage) {
  auto request = actor.sample.enterRequest();
  request.setStage(stage);
  request.send().wait(bench.scope());
}

// The start of a process that calls `body` and exits with its answer.
pid_t forked(kj::FunctionParam<int()> body) {
  pid_t pid = fork();
  if (pid == 0) {
    int status = 99;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { status = body(); })) {
      fprintf(stderr, "%s\n", kj::str(*exception).cStr());
    }
    _exit(status);
  }
  return pid;
}

int waitFor(pid_t pid) {
  int status = -1;
  waitpid(pid, &status, 0);
  return status;
}

std::string readLog(Actor& actor) {
  char text[4096];
  ssize_t n = read(actor.log, text, sizeof(text));
  return std::string(text, n < 0 ? 0 : n);
}

// Starts an actor, brings it to `stage` and makes `call` there. The wait status of an actor that
// died of it, or none.
kj::Maybe<int> deathBy(const char* call, kj::StringPtr stage) {
  JailBench bench;
  auto disk = fileWith("sector");
  Actor actor = bench.start({"sample0", "", disk.get()});
  if (stage != "start") enter(bench, actor, stage);
  if (bench.tryCall(actor, call) != nullptr) return nullptr;
  return actor.child->onExit().wait(bench.scope());
}

TEST(Launcher, JailedActorReadsItsSetupAndAnswers) {
  JailBench bench;
  Actor actor = bench.start({"blk7", "good morning"});
  auto hello = actor.sample.helloRequest().send().wait(bench.scope());
  EXPECT_EQ(kj::StringPtr("blk7"), hello.getName());
  EXPECT_EQ(kj::StringPtr("good morning"), hello.getGreeting());
}

TEST(Launcher, JailedActorWorksInRun) {
  JailBench bench;
  auto disk = fileWith("sector");
  Actor actor = bench.start({"sample0", "enter run at once", disk.get()});
  auto answer = actor.sample.readRequest().send().wait(bench.scope());
  EXPECT_EQ(kj::StringPtr("sector"), answer.getText());
}

TEST(Launcher, JailedActorEndsWellWhenItsPipeCloses) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  actor.sample.helloRequest().send().wait(bench.scope());
  actor.sample = nullptr;
  actor.client = nullptr;
  actor.stream = nullptr;
  int status = actor.child->onExit().wait(bench.scope());
  EXPECT_EQ(0, status) << readLog(actor);
}

TEST(Launcher, SetupLargerThanAPipeArrives) {
  JailBench bench;
  auto greeting = kj::heapString(300000);
  memset(greeting.begin(), 'x', greeting.size());
  Actor actor = bench.start({"sample0", greeting});
  auto hello = actor.sample.helloRequest().send().wait(bench.scope());
  EXPECT_EQ(300000u, hello.getGreeting().size());
}

TEST(Launcher, ChildrenStartInParallelAndAreSeparate) {
  JailBench bench;
  kj::Vector<Actor> actors;
  for (int i = 0; i < 4; i++)
    actors.add(bench.launch());
  for (Actor& actor : actors)
    actor.child->started().wait(bench.scope());
  for (Actor& actor : actors)
    actor.sample.helloRequest().send().wait(bench.scope());
}

TEST(Launcher, ExitStatusIsToldOnce) {
  JailBench bench;
  Actor actor = bench.start();
  auto first = actor.child->onExit();
  auto second = actor.child->onExit();
  bench.tryCall(actor, "exit");
  EXPECT_EQ(7, WEXITSTATUS(first.wait(bench.scope())));
  EXPECT_EQ(7, WEXITSTATUS(second.wait(bench.scope())));
  actor.child->kill();  // harmless by now
}

TEST(Launcher, KillIsSeenAsSuch) {
  JailBench bench;
  Actor actor = bench.start();
  actor.child->kill();
  int status = actor.child->onExit().wait(bench.scope());
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(SIGKILL, WTERMSIG(status));
}

TEST(Launcher, DestroyedChildLeavesNoProcessAndNoFd) {
  JailBench bench;
  { Actor warm = bench.start(); }
  size_t before = openFdCount();
  {
    Actor running = bench.start();
    Actor starting = bench.launch();
  }
  EXPECT_EQ(before, openFdCount());
  EXPECT_EQ(-1, waitpid(-1, nullptr, WNOHANG | __WALL));
  EXPECT_EQ(ECHILD, errno);
}

TEST(Launcher, ChildDiesWithItsLauncher) {
  int pipe[2];
  KJ_SYSCALL(pipe2(pipe, O_CLOEXEC));
  pid_t parent = forked([&]() {
    JailBench bench;
    Actor actor = bench.start();
    pid_t pid = actor.child->pid();
    KJ_SYSCALL(write(pipe[1], &pid, sizeof(pid)));
    pause();
    return 0;
  });
  pid_t child = 0;
  KJ_SYSCALL(read(pipe[0], &child, sizeof(child)));
  int pidFd = syscall(SYS_pidfd_open, child, 0);
  ASSERT_GE(pidFd, 0);
  kill(parent, SIGKILL);
  waitFor(parent);
  pollfd end = {pidFd, POLLIN, 0};
  EXPECT_EQ(1, poll(&end, 1, 5000)) << "the actor outlives its launcher";
  close(pidFd);
  close(pipe[0]);
  close(pipe[1]);
}

TEST(Launcher, IgnoredAndBlockedSignalsOfTheParentAreNotInherited) {
  signal(SIGUSR1, SIG_IGN);
  signal(SIGUSR2, [](int) {});
  JailBench bench;
  Actor actor = bench.start();
  actor.sample.helloRequest().send().wait(bench.scope());
  std::string status(4096, '\0');
  int fd = open(kj::str("/proc/", actor.child->pid(), "/status").cStr(), O_RDONLY);
  status.resize(read(fd, status.data(), status.size()));
  close(fd);
  EXPECT_TRUE(contains(status, "SigBlk:\t0000000000000000")) << status;
  EXPECT_TRUE(contains(status, "SigIgn:\t0000000000001000")) << status;  // SIGPIPE, by KJ
  EXPECT_TRUE(contains(status, "SigCgt:\t0000000000000000")) << status;
  signal(SIGUSR1, SIG_DFL);
  signal(SIGUSR2, SIG_DFL);
}

TEST(Launcher, JailOffRunsTheSameActor) {
  JailBench bench({}, Jail::OFF);
  auto disk = fileWith("sector");
  Actor actor = bench.start({"sample0", "enter run at once", disk.get()});
  auto answer = actor.sample.readRequest().send().wait(bench.scope());
  EXPECT_EQ(kj::StringPtr("sector"), answer.getText());
}

// Refused launches.

TEST(Launcher, ProgramThatCannotRunIsOneClearError) {
  JailBench bench;
  auto notAProgram = fileWith("#!");
  size_t before = openFdCount();
  auto log = fileWith(""), rpc = fileWith("");
  std::string message = describeException([&]() {
    HandedFd fds[] = {{"rpc", 0, rpc}, {"log", 0, log}};
    auto child =
        bench.launcher().launch(SAMPLE_PROFILE, notAProgram, "sample", "sample0", fds, nullptr);
    child->started().wait(bench.scope());
  });
  EXPECT_TRUE(contains(message,
                       "TRP-jail-003: sample0 could not execute its program: "
                       "Permission denied (EACCES)"))
      << message;
  log = nullptr;
  rpc = nullptr;
  EXPECT_EQ(before, openFdCount());
  EXPECT_EQ(-1, waitpid(-1, nullptr, WNOHANG | __WALL));
}

TEST(Launcher, FdsThatDoNotFitTheProfileAreRefused) {
  JailBench bench;
  auto file = fileWith("");
  auto launch = [&](kj::ArrayPtr<const HandedFd> fds) {
    return describeException([&]() {
      bench.launcher().launch(SAMPLE_PROFILE, bench.executable(), "sample", "s", fds, nullptr);
    });
  };
  HandedFd missing[] = {{"rpc", 0, file}};
  EXPECT_TRUE(contains(launch(missing), "TRP-jail-004: s needs 1 fd \"log\" and got 0"));
  HandedFd unknown[] = {{"rpc", 0, file}, {"log", 0, file}, {"dsik", 0, file}};
  EXPECT_TRUE(contains(launch(unknown), "takes no fd \"dsik\" for s; it takes log, rpc, disk"));
  HandedFd twice[] = {{"rpc", 0, file}, {"log", 0, file}, {"log", 0, file}};
  EXPECT_TRUE(contains(launch(twice), "TRP-jail-004: s got the fd \"log\" (0) twice"));
  HandedFd beyond[] = {{"rpc", 0, file}, {"log", 1, file}};
  EXPECT_TRUE(contains(launch(beyond), "with index 1; its profile has 1"));
  HandedFd closed[] = {{"rpc", 0, 987}, {"log", 0, file}};
  EXPECT_TRUE(contains(launch(closed), "TRP-jail-004: the fd \"rpc\" for s is not open"));
}

TEST(Launcher, HostWithoutUserNamespacesIsOneClearError) {
  // The limit is set for a user namespace of the test's own, not for the machine.
  int status = waitFor(forked([]() {
    KJ_SYSCALL(unshare(CLONE_NEWUSER));
    int fd;
    KJ_SYSCALL(fd = open("/proc/sys/user/max_user_namespaces", O_WRONLY));
    KJ_SYSCALL(write(fd, "0", 1));
    JailBench bench;
    std::string message = describeException([&]() { bench.start(); });
    bool clear = contains(message, "TRP-jail-001: sample0 cannot be jailed") &&
                 contains(message, "(ENOSPC); /proc/sys/user/max_user_namespaces is 0");
    if (!clear) fprintf(stderr, "%s\n", message.c_str());
    return clear ? 0 : 1;
  }));
  EXPECT_EQ(0, status);
}

// The sample's limit, and so the number its program has, is 32.
TEST(Launcher, TooSmallFdLimitIsOneClearError) {
  for (rlim_t limit : {18, 32}) {
    int status = waitFor(forked([limit]() {
      JailBench bench;
      rlimit limits = {limit, limit};
      KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limits));
      std::string message = describeException([&]() { bench.start(); });
      bool clear = contains(message, "TRP-jail-005: sample0 needs numbers of fds below 33");
      if (!clear) fprintf(stderr, "%s\n", message.c_str());
      return clear ? 0 : 1;
    }));
    EXPECT_EQ(0, status) << limit;
  }
}

TEST(Launcher, SoftFdLimitOfItsParentDoesNotBindAnActor) {
  int status = waitFor(forked([]() {
    JailBench bench;
    rlimit limits = {24, 64};
    KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limits));
    bench.start();
    return 0;
  }));
  EXPECT_EQ(0, status);
}

TEST(Launcher, ParentWithFdsAtTheProgramsNumberStartsTheSame) {
  JailBench bench;
  kj::Vector<kj::AutoCloseFd> many;
  for (int last = 0; last < 40;) {
    KJ_SYSCALL(last = fcntl(0, F_DUPFD_CLOEXEC, 0));
    many.add(kj::AutoCloseFd(last));
  }
  for (int i = 0; i < 8; i++) {
    bench.start();
    many.removeLast();
  }
}

// What the jail refuses.

struct Refusal {
  const char* call;
  const char* stage;
};

class JailRefuses: public ::testing::TestWithParam<Refusal> {};

TEST_P(JailRefuses, WithDeathBySigsys) {
  KJ_IF_MAYBE (status, deathBy(GetParam().call, GetParam().stage)) {
    EXPECT_TRUE(WIFSIGNALED(*status));
    EXPECT_EQ(SIGSYS, WTERMSIG(*status) & 0x7f);
  } else {
    FAIL() << "the call came back";
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, JailRefuses,
                         ::testing::Values(Refusal{"open", "start"}, Refusal{"socket", "start"},
                                           Refusal{"fork", "start"}, Refusal{"ptrace", "start"},
                                           Refusal{"unshare", "start"}, Refusal{"mount", "start"},
                                           Refusal{"getuid", "start"},
                                           Refusal{"executable-mapping", "start"},
                                           Refusal{"write-disk", "start"}, Refusal{"open", "run"},
                                           Refusal{"socket", "ready"}, Refusal{"fork", "run"},
                                           Refusal{"executable-mapping", "run"},
                                           Refusal{"read-rpc", "ready"},
                                           Refusal{"read-rpc", "run"}),
                         [](const auto& info) {
                           std::string name = info.param.call;
                           for (char& c : name) {
                             if (c == '-') c = '_';
                           }
                           return name + "_in_" + info.param.stage;
                         });

TEST(Jail, RuleOnAnFdHoldsForThatFdOnly) {
  JailBench bench;
  auto disk = fileWith("sector");
  Actor actor = bench.start({"sample0", "", disk.get()});
  EXPECT_EQ(-ESPIPE, KJ_ASSERT_NONNULL(bench.tryCall(actor, "read-rpc")));  // allowed in start
  enter(bench, actor, "ready");
  auto answer = actor.sample.readRequest().send().wait(bench.scope());
  EXPECT_EQ(kj::StringPtr("sector"), answer.getText());
  EXPECT_TRUE(bench.tryCall(actor, "read-rpc") == nullptr);
}

// Else an actor that is taken over in `start` puts what it wrote into a memfd at the one number
// that its filter lets it execute.
TEST(Jail, NothingCanBePutWhereTheProgramWasExecuted) {
  JailBench bench;
  Actor actor = bench.start();
  EXPECT_EQ(-EBADF, KJ_ASSERT_NONNULL(bench.tryCall(actor, "dup-to-the-programs-number")));
  EXPECT_EQ(-EBADF, KJ_ASSERT_NONNULL(bench.tryCall(actor, "execute-the-programs-number")));
}

TEST(Jail, Clone3IsAnsweredWithEnosys) {
  JailBench bench;
  Actor actor = bench.start();
  EXPECT_EQ(-ENOSYS, KJ_ASSERT_NONNULL(bench.tryCall(actor, "clone3")));
}

TEST(Jail, ActorIsTheFirstProcessOfItsOwnPidNamespace) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  EXPECT_EQ(1, KJ_ASSERT_NONNULL(bench.tryCall(actor, "getpid")));
}

TEST(Jail, FailedRpcIsAnExceptionAndNoDeath) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  EXPECT_TRUE(bench.tryCall(actor, "throw") == nullptr);
  actor.sample.helloRequest().send().wait(bench.scope());
}

TEST(Jail, AbortIsADeathByItsOwnHandAndNotByTheFilter) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  EXPECT_TRUE(bench.tryCall(actor, "abort") == nullptr);
  int status = actor.child->onExit().wait(bench.scope());
  EXPECT_TRUE(WIFSIGNALED(status));
  // The first process of a pid namespace is spared its own SIGABRT; glibc then takes a fault.
  EXPECT_NE(SIGSYS, WTERMSIG(status));
}

TEST(Jail, LandlockDeniesEvenTheEmptyRoot) {
  if (syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1) {
    GTEST_SKIP() << "this kernel has no landlock";
  }
  JailBench without(LaunchFaults{LaunchFaults::SECCOMP});
  Actor actor = without.start();
  EXPECT_EQ(-EACCES, KJ_ASSERT_NONNULL(without.tryCall(actor, "open-root")));
}

}  // namespace
}  // namespace troupe::sandbox::testing
