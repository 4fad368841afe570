#include "sandbox/watch/call_watch.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "sandbox/testing/jail_bench.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

// A folder for records, and what is in it at the end of a watch.
class Watched {
 public:
  explicit Watched(WatchMode mode) {
    KJ_REQUIRE(mkdtemp(folder) != nullptr);
    request = kj::heap<WatchRequest>(WatchRequest{mode, kj::str(folder)});
  }
  ~Watched() {
    for (const std::string& path : files())
      unlink(path.c_str());
    rmdir(folder);
  }

  std::vector<std::string> files() const {
    std::vector<std::string> paths;
    DIR* entries = opendir(folder);
    while (const dirent* entry = readdir(entries)) {
      if (entry->d_name[0] != '.') paths.push_back(std::string(folder) + "/" + entry->d_name);
    }
    closedir(entries);
    return paths;
  }

  std::vector<CallRecord> records() const {
    std::vector<CallRecord> all;
    for (const std::string& path : files()) {
      std::ifstream file(path);
      std::stringstream text;
      text << file.rdbuf();
      EXPECT_TRUE(readRecords(text.str(), all));
    }
    return all;
  }

  uint64_t count(const std::string& stage, int syscall) const {
    uint64_t count = 0;
    for (const CallRecord& record : records()) {
      if (record.stage == stage && record.syscall == syscall) count += record.count;
    }
    return count;
  }

  const WatchRequest& operator*() const { return *request; }

 private:
  char folder[32] = "/tmp/watch-test-XXXXXX";
  kj::Own<WatchRequest> request;
};

void enter(JailBench& bench, Actor& actor, kj::StringPtr stage) {
  auto request = actor.sample.enterRequest();
  request.setStage(stage);
  request.send().wait(bench.scope());
}

void place(JailBench& bench, Actor& actor) {
  auto request = actor.sample.placeRequest();
  request.setHandle(bench.event());
  request.send().wait(bench.scope());
}

void startThread(JailBench& bench, Actor& actor, kj::StringPtr call) {
  auto request = actor.sample.startThreadRequest();
  request.setStage("thread:worker");
  request.setCall(call);
  request.send().wait(bench.scope());
}

TEST(CallWatch, RefusedCallsAreMadeAndReported) {
  Watched watched(WatchMode::REPORT_REFUSED);
  {
    JailBench bench({}, Jail::ON, *watched);
    Actor actor = bench.start();
    EXPECT_FALSE(bench.tryCall(actor, "getuid") == nullptr);
    enter(bench, actor, "ready");
    EXPECT_FALSE(bench.tryCall(actor, "getuid") == nullptr);
    enter(bench, actor, "run");
    EXPECT_FALSE(bench.tryCall(actor, "getuid") == nullptr);
    EXPECT_FALSE(bench.tryCall(actor, "sched_yield") == nullptr);  // which ready would allow
  }
  EXPECT_EQ(1u, watched.count("start", SCMP_SYS(getuid)));
  EXPECT_EQ(1u, watched.count("ready", SCMP_SYS(getuid)));
  EXPECT_EQ(1u, watched.count("run", SCMP_SYS(getuid)));
  EXPECT_EQ(1u, watched.count("run", SCMP_SYS(sched_yield)));
  EXPECT_EQ(4u, watched.records().size());
}

TEST(CallWatch, EveryCallIsReportedInItsStage) {
  Watched watched(WatchMode::REPORT_ALL);
  {
    JailBench bench({}, Jail::ON, *watched);
    Actor actor = bench.start();
    enter(bench, actor, "ready");
    enter(bench, actor, "run");
    EXPECT_FALSE(bench.tryCall(actor, "sched_yield") == nullptr);
  }
  EXPECT_LT(0u, watched.count("start", SCMP_SYS(epoll_create1)));
  EXPECT_EQ(1u, watched.count("ready", SCMP_SYS(seccomp)));
  EXPECT_EQ(1u, watched.count("run", SCMP_SYS(sched_yield)));
  EXPECT_LT(0u, watched.count("run", SCMP_SYS(epoll_wait)));
  for (const CallRecord& record : watched.records()) {
    EXPECT_EQ("sample", record.actor);
    EXPECT_NE(std::string::npos, record.program.find("sample_actor")) << record.program;
    EXPECT_FALSE(record.stack.empty()) << record.syscall;
  }
}

TEST(CallWatch, ThreadsAreSeenUnderTheirOwnFilters) {
  Watched watched(WatchMode::REPORT_ALL);
  {
    JailBench bench({}, Jail::ON, *watched);
    Actor actor = bench.start();
    place(bench, actor);
    for (int i = 0; i < 3; i++)
      startThread(bench, actor, "getuid");
    enter(bench, actor, "run");
    EXPECT_FALSE(bench.tryCall(actor, "sched_yield") == nullptr);
  }
  EXPECT_EQ(3u, watched.count("thread:worker", SCMP_SYS(getuid)));
  EXPECT_LT(0u, watched.count("start", SCMP_SYS(clone)));
  EXPECT_EQ(1u, watched.count("run", SCMP_SYS(sched_yield)));
}

TEST(CallWatch, CountingCountsAndStillKills) {
  Watched watched(WatchMode::COUNT);
  {
    JailBench bench({}, Jail::ON, *watched);
    Actor actor = bench.start();
    enter(bench, actor, "ready");
    EXPECT_FALSE(bench.tryCall(actor, "sched_yield") == nullptr);
    enter(bench, actor, "run");
    EXPECT_TRUE(bench.tryCall(actor, "sched_yield") == nullptr);
    int status = actor.child->onExit().wait(bench.scope());
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(SIGSYS, WTERMSIG(status));
    KJ_IF_MAYBE (refused, actor.child->refusedCall()) {
      EXPECT_STREQ("run", refused->stage.cStr());
      EXPECT_STREQ("sched_yield()", refused->call.cStr());
    } else {
      ADD_FAILURE() << "its end is not explained";
    }
  }
  EXPECT_EQ(1u, watched.count("ready", SCMP_SYS(sched_yield)));
  EXPECT_EQ(0u, watched.count("run", SCMP_SYS(sched_yield)));
}

TEST(CallWatch, JailIsClosedOtherwise) {
  for (WatchMode mode : {WatchMode::REPORT_ALL, WatchMode::REPORT_REFUSED, WatchMode::COUNT}) {
    Watched watched(mode);
    JailBench bench({}, Jail::ON, *watched);
    Actor actor = bench.start();
    enter(bench, actor, "ready");
    AttestOptions options;
    options.stage = Stage::READY;
    auto& profile = bench.launcher().inForce(SAMPLE_PROFILE);
    auto attestation = attest(profile, actor.child->pid(), options);
    for (auto& difference : attestation.differences)
      ADD_FAILURE() << difference.cStr();
  }
}

TEST(CallWatch, ThreadThatNeverStopsCallingKeepsNobodyWaiting) {
  Watched watched(WatchMode::COUNT);
  JailBench bench({}, Jail::ON, *watched);
  Actor busy = bench.start({"busy", ""});
  place(bench, busy);
  enter(bench, busy, "run");
  auto working = busy.sample.tryRequest();
  working.setCall("eventfd-writes");
  auto done = working.send().ignoreResult().eagerlyEvaluate(nullptr);
  Actor other = bench.start({"other", ""});
  for (int i = 0; i < 20; i++)
    other.sample.helloRequest().send().wait(bench.scope());
}

TEST(CallWatch, ManySignalsAreNoWayOut) {
  Watched watched(WatchMode::COUNT);
  JailBench bench({}, Jail::ON, *watched);
  Actor actor = bench.start({"sample0", "enter run at once"});
  actor.sample.helloRequest().send().wait(bench.scope());
  for (int i = 0; i < 3000; i++) {
    kill(actor.child->pid(), SIGRTMIN + i % 20);
    if (i % 50 == 0) actor.sample.helloRequest().send().wait(bench.scope());
  }
  actor.sample.helloRequest().send().wait(bench.scope());
}

TEST(CallWatch, FolderThatCannotBeWrittenIsAnError) {
  WatchRequest request{WatchMode::COUNT, kj::str("/proc/nowhere")};
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { CallWatch watch(request); })) {
    EXPECT_TRUE(kj::StringPtr(exception->getDescription()).startsWith("TRP-jail-050: "))
        << exception->getDescription().cStr();
  } else {
    ADD_FAILURE() << "no error";
  }
}

}  // namespace
}  // namespace troupe::sandbox::testing
