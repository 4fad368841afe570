#include "sandbox/exit_report.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "sandbox/testing/jail_bench.h"

namespace troupe::sandbox::testing {
namespace {

struct Told {
  int status = 0;
  bool known = false;
  std::string stage, call, remedy;
};

Told endOf(JailBench& bench, Actor& actor) {
  Told told;
  told.status = actor.child->onExit().wait(bench.scope());
  KJ_IF_MAYBE (refused, actor.child->refusedCall()) {
    told = {told.status, true, refused->stage.cStr(), refused->call.cStr(), refused->remedy.cStr()};
  }
  return told;
}

void enter(JailBench& bench, Actor& actor, kj::StringPtr stage) {
  auto request = actor.sample.enterRequest();
  request.setStage(stage);
  request.send().wait(bench.scope());
}

// The end of an actor that makes `call` in `stage`.
Told deathBy(const char* call, kj::StringPtr stage) {
  JailBench bench;
  auto disk = fileWith("sector");
  Actor actor = bench.start({"sample0", "", disk.get()});
  if (stage != "start") enter(bench, actor, "ready");
  if (stage == "run") enter(bench, actor, "run");
  EXPECT_TRUE(bench.tryCall(actor, call) == nullptr);
  return endOf(bench, actor);
}

void startThread(JailBench& bench, Actor& actor, kj::StringPtr stage, kj::StringPtr call) {
  auto request = actor.sample.startThreadRequest();
  request.setStage(stage);
  request.setCall(call);
  request.send().then([](auto&&) {}, [](kj::Exception&&) {}).wait(bench.scope());
}

void place(JailBench& bench, Actor& actor) {
  auto request = actor.sample.placeRequest();
  request.setHandle(bench.event());
  request.send().wait(bench.scope());
}

void hello(JailBench& bench, Actor& actor) {
  actor.sample.helloRequest().send().wait(bench.scope());
}

TEST(ExitReport, TellsCallStageAndRemedyInStart) {
  Told told = deathBy("socket", "start");
  EXPECT_EQ(SIGSYS, WTERMSIG(told.status));
  EXPECT_EQ("start", told.stage);
  EXPECT_EQ("socket(AF_INET, SOCK_STREAM, 0)", told.call);
  EXPECT_EQ(
      "add to sandbox/testing/sample.profile, start: rule { syscall: \"socket\" arg { index: 0 "
      "value: \"AF_INET\" } arg { index: 1 value: \"SOCK_STREAM\" } reason: \"...\" }",
      told.remedy);
}

TEST(ExitReport, TellsCallStageAndRemedyInReady) {
  Told told = deathBy("getuid", "ready");
  EXPECT_EQ("ready", told.stage);
  EXPECT_EQ("getuid()", told.call);
  EXPECT_EQ(
      "add to sandbox/testing/sample.profile, ready: rule { syscall: \"getuid\" reason: "
      "\"...\" }",
      told.remedy);
}

TEST(ExitReport, TellsCallStageAndRemedyInRun) {
  Told told = deathBy("sched_yield", "run");  // which ready would allow
  EXPECT_EQ("run", told.stage);
  EXPECT_EQ("sched_yield()", told.call);
}

TEST(ExitReport, KnowsRunFromReadyWhenReadyWasLeftOut) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  EXPECT_TRUE(bench.tryCall(actor, "sched_yield") == nullptr);
  EXPECT_EQ("run", endOf(bench, actor).stage);
}

TEST(ExitReport, NamesPathCallsAsTheKernelGotThem) {
  Told told = deathBy("open", "run");
  EXPECT_EQ(0u, told.call.find("openat(AT_FDCWD, 0x")) << told.call;
  EXPECT_NE(std::string::npos, told.call.find(", O_RDONLY, 0)")) << told.call;
}

TEST(ExitReport, ShowsFdsByTheirNamesAndPinsThem) {
  Told told = deathBy("write-disk", "run");
  EXPECT_EQ(0u, told.call.find("pwrite64(disk (16), 0x")) << told.call;
  EXPECT_NE(std::string::npos, told.remedy.find("rule { syscall: \"pwrite64\" fd: \"disk\" reason"))
      << told.remedy;
}

TEST(ExitReport, ShowsWordsAndNamesThemInTheRule) {
  Told told = deathBy("executable-mapping", "run");
  EXPECT_EQ("mmap(0x0, 4096, PROT_READ|PROT_WRITE|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)",
            told.call);
  EXPECT_NE(std::string::npos,
            told.remedy.find("arg { index: 2 value: \"PROT_READ|PROT_WRITE|PROT_EXEC\" } "
                             "arg { index: 3 value: \"MAP_PRIVATE|MAP_ANONYMOUS\" }"))
      << told.remedy;
}

TEST(ExitReport, ForeignCallingConventionIsSaidAndHasNoRemedy) {
  Told told = deathBy("getpid-i386", "run");
  if (WTERMSIG(told.status) == SIGSEGV) GTEST_SKIP() << "this kernel runs no 32-bit calls";
  EXPECT_EQ("call 20 by the i386 convention, which no profile can allow", told.call);
  EXPECT_EQ("", told.remedy);
}

TEST(ExitReport, FindsTheThreadThatMadeTheCall) {
  JailBench bench;
  Actor actor = bench.start();
  place(bench, actor);
  for (int i = 0; i < 4; i++)
    startThread(bench, actor, "thread:worker", "");
  startThread(bench, actor, "thread:worker", "socket");
  Told told = endOf(bench, actor);
  EXPECT_EQ(SIGSYS, WTERMSIG(told.status));
  EXPECT_EQ("thread:worker", told.stage);
  EXPECT_EQ("socket(AF_INET, SOCK_STREAM, 0)", told.call);
  EXPECT_EQ(0u, told.remedy.find("no profile may allow socket once")) << told.remedy;
}

// There is one SIGCHLD for all launchers of a process, and whoever reads it takes it from the
// others: here, while they deal with others that came just before.
TEST(ExitReport, NoStopIsMissedBesideAnotherLauncher) {
  JailBench bench;
  Launcher others[] = {{bench.io().unixEventPort, Jail::ON}, {bench.io().unixEventPort, Jail::ON}};
  for (int turn = 0; turn < 10; turn++) {
    kj::Vector<Actor> actors;
    for (int i = 0; i < 12; i++)
      actors.add(bench.launch());
    auto ended = kj::heapArrayBuilder<kj::Promise<int>>(actors.size());
    for (auto& actor : actors) {
      actor.child->started().wait(bench.scope());
      ended.add(actor.child->onExit());
    }
    for (auto& actor : actors) {
      auto request = actor.sample.tryRequest();
      request.setCall("getuid");
      request.send().detach([](kj::Exception&&) {});
    }
    for (int status : kj::joinPromises(ended.finish()).wait(bench.scope()))
      EXPECT_EQ(status & 0x7f, SIGSYS);
  }
}

TEST(ExitReport, RemedyForAThreadIsItsOwnFilter) {
  JailBench bench;
  Actor actor = bench.start();
  place(bench, actor);
  startThread(bench, actor, "thread:worker", "getuid");
  Told told = endOf(bench, actor);
  EXPECT_NE(std::string::npos, told.remedy.find("sample.profile, thread \"worker\": rule {"))
      << told.remedy;
}

TEST(ExitReport, FindsAThreadThatDiesBeforeItTakesItsFilter) {
  JailBench bench;
  Actor actor = bench.start();
  place(bench, actor);
  startThread(bench, actor, "", "getuid");
  Told told = endOf(bench, actor);
  EXPECT_EQ("start", told.stage);
  EXPECT_EQ("getuid()", told.call);
}

TEST(ExitReport, MainThreadBesideOthersIsFound) {
  JailBench bench;
  Actor actor = bench.start();
  place(bench, actor);
  for (int i = 0; i < 3; i++)
    startThread(bench, actor, "thread:worker", "");
  enter(bench, actor, "ready");
  EXPECT_TRUE(bench.tryCall(actor, "getuid") == nullptr);
  Told told = endOf(bench, actor);
  EXPECT_EQ("ready", told.stage);
  EXPECT_EQ("getuid()", told.call);
}

// Ends of other kinds.

TEST(ExitReport, SaysNothingOfAnExit) {
  JailBench bench;
  Actor actor = bench.start();
  bench.tryCall(actor, "exit");
  Told told = endOf(bench, actor);
  EXPECT_EQ(7, WEXITSTATUS(told.status));
  EXPECT_FALSE(told.known);
}

TEST(ExitReport, SaysNothingOfAKill) {
  JailBench bench;
  Actor actor = bench.start();
  actor.child->kill();
  EXPECT_FALSE(endOf(bench, actor).known);
}

// So that whoever sees the pipe closed can tell a death from a hang-up.
TEST(ExitReport, ThatItIsAboutToEndIsKnownBeforeItsPipeCloses) {
  JailBench bench;
  for (kj::StringPtr end : {"abort", "exit", "getuid", "SIGKILL"}) {
    for (int i = 0; i < 10; i++) {
      Actor actor = bench.start({"sample0", "enter run at once"});
      hello(bench, actor);
      EXPECT_FALSE(actor.child->isEnding());
      if (end == "SIGKILL") actor.child->kill();
      EXPECT_TRUE(bench.tryCall(actor, end) == nullptr);
      EXPECT_TRUE(actor.child->isEnding()) << end.cStr();
    }
  }
}

TEST(ExitReport, SaysNothingWhereNobodyLooked) {
  JailBench bench(LaunchFaults{LaunchFaults::EXIT_REPORT});
  Actor actor = bench.start();
  bench.tryCall(actor, "getuid");
  Told told = endOf(bench, actor);
  EXPECT_EQ(SIGSYS, WTERMSIG(told.status));
  EXPECT_FALSE(told.known);
}

TEST(ExitReport, ActorWithManyThreadsIsDestroyedAtOnce) {
  JailBench bench;
  {
    Actor actor = bench.start();
    place(bench, actor);
    for (int i = 0; i < 16; i++)
      startThread(bench, actor, "thread:worker", "");
  }
  EXPECT_EQ(-1, waitpid(-1, nullptr, WNOHANG | __WALL));
  EXPECT_EQ(ECHILD, errno);
}

TEST(ExitReport, ActorsDestroyedWhileTheirThreadsStartLeaveNothing) {
  for (int i = 0; i < 50; i++) {
    JailBench bench;
    Actor actor = bench.start();
    place(bench, actor);
    kj::Vector<kj::Promise<void>> starting;
    for (int j = 0; j < i % 8; j++)
      starting.add(actor.sample.startThreadRequest().send().ignoreResult());
    bench.io().provider->getTimer().afterDelay(i * 20 * kj::MICROSECONDS).wait(bench.scope());
  }
  EXPECT_EQ(-1, waitpid(-1, nullptr, WNOHANG | __WALL));
  EXPECT_EQ(ECHILD, errno);
}

// What tracing must not change.

char stateOf(pid_t pid) {
  FILE* file = fopen(kj::str("/proc/", pid, "/stat").cStr(), "r");
  char state = '?';
  if (file == nullptr || fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = '?';
  if (file != nullptr) fclose(file);
  return state;
}

TEST(ExitReport, StoppedActorStaysStoppedUntilContinued) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  hello(bench, actor);
  pid_t pid = actor.child->pid();
  kill(pid, SIGSTOP);
  auto& timer = bench.io().provider->getTimer();
  for (int i = 0; i < 1000 && stateOf(pid) != 't' && stateOf(pid) != 'T'; i++)
    timer.afterDelay(1 * kj::MILLISECONDS).wait(bench.scope());
  bool answered = false;
  auto answer = actor.sample.helloRequest().send().then([&](auto&&) { answered = true; });
  timer.afterDelay(50 * kj::MILLISECONDS).wait(bench.scope());
  EXPECT_FALSE(answered);
  kill(pid, SIGCONT);
  answer.wait(bench.scope());
  EXPECT_TRUE(answered);
}

TEST(ExitReport, StoppedActorCanBeDestroyed) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  hello(bench, actor);
  kill(actor.child->pid(), SIGSTOP);
}

TEST(ExitReport, ActorDrownedInSignalsGoesOn) {
  JailBench bench;
  Actor actor = bench.start({"sample0", "enter run at once"});
  hello(bench, actor);
  auto begin = SignalFlood::Clock::now();
  for (int i = 0; i < 5000; i++) {
    kill(actor.child->pid(), SIGRTMIN + i % 20);
    if (i % 50 == 0) hello(bench, actor);
  }
  hello(bench, actor);
  // Where that took longer they were none too many, perhaps (signal_flood_test).
  bool isFlood = SignalFlood::Clock::now() - begin < SignalFlood::PERIOD;
  if (isFlood) {
    EXPECT_FALSE(actor.child->isTraced());
  }
  EXPECT_TRUE(bench.tryCall(actor, "exit") == nullptr);
  EXPECT_EQ(7, WEXITSTATUS(endOf(bench, actor).status));
}

TEST(ExitReport, NobodyElseCanTraceAnActor) {
  JailBench bench;
  Actor actor = bench.start();
  pid_t other = fork();
  if (other == 0) {
    _exit(ptrace(PTRACE_SEIZE, actor.child->pid(), nullptr, nullptr) < 0 && errno == EPERM ? 0 : 1);
  }
  int status = -1;
  waitpid(other, &status, 0);
  EXPECT_EQ(0, status);
}

}  // namespace
}  // namespace troupe::sandbox::testing
