#include "sandbox/tool/learn.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <map>

#include "sandbox/filter_program.h"
#include "sandbox/policy.h"
#include "sandbox/tool/profile_text.h"

namespace troupe::sandbox {
namespace {

class MemoryFiles final: public ProfileFiles {
 public:
  std::optional<std::string> read(const std::string& path) const override {
    auto found = texts.find(path);
    return found == texts.end() ? std::nullopt : std::make_optional(found->second);
  }
  std::map<std::string, std::string> texts;
};

constexpr char FDS[] = R"(actor: "tape"
fd { name: "reel" number: 16 kind: FILE }
fd { name: "kick" number: 20 count: 4 kind: EVENTFD from: PLACED optional: true }
fd { name: "ram" number: 30 kind: MEMFD closed: true }
)";

CallRecord call(const std::string& stage, int number, std::vector<uint64_t> arguments = {},
                uint64_t count = 1) {
  CallRecord record;
  record.actor = "tape";
  record.stage = stage;
  record.mainThread = stage.compare(0, 7, "thread:") != 0;
  record.syscall = number;
  for (size_t i = 0; i < arguments.size(); i++)
    record.arguments[i] = arguments[i];
  record.count = count;
  record.stack = {uint64_t(number)};
  return record;
}

struct Lesson {
  explicit Lesson(const std::string& text) { files.texts["tape.profile"] = text; }

  Lesson& from(const std::vector<CallRecord>& records) {
    learned = learn(files, "tape.profile", records, [](const CallRecord& record) {
      return record.stack.empty() ? "" : site(record);
    });
    files.texts["tape.profile"] = learned.text;
    return *this;
  }
  static std::string site(const CallRecord& record) {
    return "troupe::f" + std::to_string(record.stack[0]);
  }
  bool has(const std::string& part) const { return learned.text.find(part) != std::string::npos; }
  size_t count(const std::string& part) const {
    size_t n = 0;
    for (size_t at = 0; (at = learned.text.find(part, at)) != std::string::npos; at++)
      n++;
    return n;
  }

  MemoryFiles files;
  Learned learned;
};

TEST(Learn, PinsFdsByNameWhereverInTheRangeTheyWere) {
  Lesson lesson(FDS);
  lesson.from({call("run", SCMP_SYS(lseek), {22, 0, SEEK_END})});
  EXPECT_TRUE(
      lesson.has("rule { syscall: \"lseek\" fd: \"kick\" arg { index: 2 value: "
                 "\"SEEK_END\" } reason: \"1 call, main thread: troupe::f8\" }"))
      << lesson.learned.text;
}

TEST(Learn, RuleStandsInTheLastStageThatNeedsIt) {
  Lesson lesson(FDS);
  lesson.from({call("start", SCMP_SYS(getpgrp)), call("ready", SCMP_SYS(getpgrp)),
               call("start", SCMP_SYS(uname)), call("run", SCMP_SYS(getppid))});
  Policy policy = readPolicy(lesson.files, "tape.profile");
  auto reach = [&](const char* stage) {
    std::string all;
    for (const std::string& name : reachOf(*filterOf(policy, stage)).unconditional)
      all += name + " ";
    return all;
  };
  EXPECT_EQ("getpgrp getppid uname ", reach("start"));
  EXPECT_EQ("getpgrp getppid ", reach("ready"));
  EXPECT_EQ("getppid ", reach("run"));
}

TEST(Learn, WhatIsWatchedOnceMayBeWatchedNoMoreInEveryStage) {
  Lesson lesson(std::string(FDS) + "fd { name: \"loop\" number: 40 kind: EPOLL from: MADE }\n");
  lesson.from({call("start", SCMP_SYS(epoll_ctl), {40, EPOLL_CTL_ADD, 16})});
  Policy policy = readPolicy(lesson.files, "tape.profile");
  for (const char* stage : {"start", "ready", "run"}) {
    auto decided = [&](uint64_t epoll) {
      return decide(*filterOf(policy, stage), SCMP_SYS(epoll_ctl), {epoll, EPOLL_CTL_DEL, 17});
    };
    EXPECT_EQ(SECCOMP_RET_ALLOW, decided(40)) << stage << lesson.learned.text;
    EXPECT_NE(SECCOMP_RET_ALLOW, decided(41)) << stage;
  }
  EXPECT_EQ(1u, lesson.count("\"epoll_ctl\"")) << lesson.learned.text;
  EXPECT_TRUE(lesson.has("1 call, main thread, and more by chance: troupe::f"))
      << lesson.learned.text;
}

TEST(Learn, ValuesOfOnePlaceMakeOneRule) {
  Lesson lesson(FDS);
  auto wait = call("run", SCMP_SYS(futex), {1, FUTEX_WAIT_PRIVATE, 2}, 3);
  auto wake = call("run", SCMP_SYS(futex), {1, FUTEX_WAKE_PRIVATE, 1}, 4);
  lesson.from({wait, wake});
  EXPECT_EQ(1u, lesson.count("\"futex\"")) << lesson.learned.text;
  EXPECT_TRUE(lesson.has("value: \"FUTEX_WAIT_PRIVATE\" value: \"FUTEX_WAKE_PRIVATE\"") ||
              lesson.has("value: \"FUTEX_WAKE_PRIVATE\" value: \"FUTEX_WAIT_PRIVATE\""))
      << lesson.learned.text;
  EXPECT_TRUE(lesson.has("7 calls, main thread: troupe::f202"));
}

TEST(Learn, MappingsOfAnFdAndOfMemoryStayApart) {
  Lesson lesson(FDS);
  lesson.from({call("start", SCMP_SYS(mmap),
                    {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ~uint64_t{0}}),
               call("start", SCMP_SYS(mmap), {0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, 30})});
  EXPECT_TRUE(lesson.has("arg { index: 3 value: \"MAP_SHARED\" }")) << lesson.learned.text;
  EXPECT_TRUE(lesson.has("arg { index: 4 fd: \"ram\" }")) << lesson.learned.text;
  EXPECT_TRUE(lesson.has("arg { index: 3 value: \"MAP_PRIVATE|MAP_ANONYMOUS\" }"));
}

TEST(Learn, SmallSizesAreRoundedUpAndOthersLeftOpen) {
  Lesson lesson(FDS);
  lesson.from({call("run", SCMP_SYS(getrandom), {1, 33, 0}),
               call("run", SCMP_SYS(read), {20, 1, 8}),
               call("run", SCMP_SYS(pread64), {16, 1, 4096, 512})});
  EXPECT_TRUE(lesson.has("arg { index: 1 at_most: \"64\" }")) << lesson.learned.text;
  EXPECT_TRUE(lesson.has("syscall: \"read\" fd: \"kick\" arg { index: 2 at_most: \"8\" }"))
      << lesson.learned.text;
  EXPECT_TRUE(lesson.has("syscall: \"pread64\" fd: \"reel\" reason"));
}

TEST(Learn, SizesOfOneCallAreOneSoThatFiltersCanBeBuilt) {
  Lesson lesson(FDS);
  lesson.from({call("start", SCMP_SYS(getrandom), {1, 8, 1}),
               call("run", SCMP_SYS(getrandom), {1, 256, 0})});
  EXPECT_EQ(2u, lesson.count("arg { index: 1 at_most: \"256\" }")) << lesson.learned.text;
  // A size that is there already may be another: then the new one is left open.
  lesson.from({call("run", SCMP_SYS(getrandom), {1, 4000, 2})});
  for (const PolicyFilter& filter : readPolicy(lesson.files, "tape.profile").filters)
    EXPECT_FALSE(buildProgram(filter).empty());
}

TEST(Learn, WhatNoProfileMayAllowIsToldAndLeftOut) {
  Lesson lesson(FDS);
  lesson.from({call("run", SCMP_SYS(openat), {1, 1, 0, 0}, 5), call("run", SCMP_SYS(brk))});
  ASSERT_EQ(1u, lesson.learned.refused.size());
  EXPECT_EQ("run called openat (5), which no profile may allow then", lesson.learned.refused[0]);
  EXPECT_FALSE(lesson.has("openat"));
}

TEST(Learn, ThreadsGetRulesOfTheirOwn) {
  Lesson lesson(std::string(FDS) + "thread {\n  name: \"spool\"\n}\n");
  lesson.from({call("thread:spool", SCMP_SYS(read), {20, 1, 8}), call("run", SCMP_SYS(getppid))});
  Policy policy = readPolicy(lesson.files, "tape.profile");
  EXPECT_EQ(1u, reachOf(*filterOf(policy, "thread:spool")).total());
  EXPECT_EQ(1u, reachOf(*filterOf(policy, "run")).total());
  EXPECT_TRUE(lesson.has("thread spool"));
}

TEST(Learn, WhatIsChanceIsAllowedWhereverItMayCome) {
  Lesson lesson(std::string(FDS) + "thread {\n  name: \"spool\"\n}\n");
  lesson.from({call("start", SCMP_SYS(brk)),
               call("thread:spool", SCMP_SYS(futex), {1, FUTEX_WAKE_PRIVATE, 1})});
  Policy policy = readPolicy(lesson.files, "tape.profile");
  for (const char* stage : {"run", "thread:spool"})
    EXPECT_EQ(2u, reachOf(*filterOf(policy, stage)).total()) << stage << lesson.learned.text;
  EXPECT_TRUE(lesson.has("by chance"));
}

TEST(Learn, AllowedCallsAddNothing) {
  Lesson lesson(std::string(FDS) + "run { rule { syscall: \"brk\" reason: \"heap\" } }\n");
  lesson.from({call("run", SCMP_SYS(brk)), call("start", SCMP_SYS(brk)),
               call("start", SCMP_SYS(seccomp), {1, 1, 1})});
  EXPECT_EQ(0u, lesson.learned.rules);
}

TEST(Learn, SecondRunWidensAndLeavesTheRestAsItsWriterLeftIt) {
  Lesson lesson(
      std::string(FDS) +
      "run {  # a comment with a } in it\n  rule { syscall: \"brk\" reason: \"a { b\" }\n}\n");
  lesson.from({call("run", SCMP_SYS(getrandom), {1, 30, 0})});
  EXPECT_TRUE(lesson.has("at_most: \"32\"")) << lesson.learned.text;
  lesson.from({call("run", SCMP_SYS(getrandom), {1, 100, 0})});
  EXPECT_EQ(1u, lesson.learned.rules);
  EXPECT_TRUE(lesson.has("at_most: \"128\"")) << lesson.learned.text;
  EXPECT_FALSE(lesson.has("at_most: \"32\"")) << lesson.learned.text;
  EXPECT_TRUE(lesson.has("run {  # a comment with a } in it\n  rule { syscall: \"brk\""));
  EXPECT_EQ(1u, lesson.count("budget {")) << lesson.learned.text;
}

TEST(Learn, NothingIsLostBetweenRuns) {
  Lesson lesson(FDS);
  lesson.from({call("start", SCMP_SYS(getpgrp)), call("run", SCMP_SYS(getppid))});
  lesson.from({call("run", SCMP_SYS(getpgrp))});
  EXPECT_EQ(1u, lesson.count("\"getpgrp\"")) << lesson.learned.text;
  Policy policy = readPolicy(lesson.files, "tape.profile");
  EXPECT_EQ(2u, reachOf(*filterOf(policy, "run")).total());
}

TEST(Learn, TextFromElsewhereCannotLeaveItsQuotes) {
  Lesson lesson(FDS);
  lesson.learned = learn(lesson.files, "tape.profile", {call("run", SCMP_SYS(brk))},
                         [](const CallRecord&) { return "x\" } rule { syscall: \"ptrace\n\\"; });
  lesson.files.texts["tape.profile"] = lesson.learned.text;
  Policy policy = readPolicy(lesson.files, "tape.profile");
  EXPECT_EQ(1u, reachOf(*filterOf(policy, "run")).total());
}

TEST(ProfileText, WithoutRulesKeepsFdsLayersAndThreads) {
  MemoryFiles files;
  files.texts["shared.profile"] =
      "fd { name: \"log\" number: 2 kind: PIPE }\nmemory { access: NONE }\n"
      "landlock { deny: FILES }\n"
      "run { rule { syscall: \"brk\" reason: \"heap\" } }\n";
  files.texts["tape.profile"] =
      std::string("include: \"shared.profile\"\n") + FDS +
      "thread { name: \"spool\" rule { syscall: \"brk\" reason: \"x\" } }\n"
      "landlock { deny: TCP optional: \"yes\" }\n"
      "limit { resource: \"AS\" value: 65536 }\n"
      "budget { filter: \"run\" syscalls: 1 unconditional: 1 }\n";
  std::string text = withoutRules(files, "tape.profile");
  EXPECT_EQ(std::string::npos, text.find("brk")) << text;
  EXPECT_EQ(std::string::npos, text.find("budget")) << text;
  EXPECT_EQ(std::string::npos, text.find("include")) << text;
  EXPECT_EQ(std::string::npos, text.find("FILES")) << text;
  for (const char* line :
       {"actor: \"tape\"\n", "fd { name: \"log\" number: 2 kind: PIPE }\n",
        "fd { name: \"reel\" number: 16 kind: FILE }\n",
        "limit { resource: \"AS\" value: 65536 }\n", "landlock { deny: TCP optional: \"yes\" }\n",
        "thread {\n  name: \"spool\"\n}\n"})
    EXPECT_NE(std::string::npos, text.find(line)) << line << text;
}

}  // namespace
}  // namespace troupe::sandbox
