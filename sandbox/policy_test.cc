#include "sandbox/policy.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/resource.h>

#include <filesystem>
#include <string>

#include "sandbox/filter_program.h"
#include "sandbox/testing/profile_tree.h"

namespace troupe::sandbox {
namespace {

using Tree = testing::ProfileTree;

std::string errorOf(const std::string& text) {
  return Tree().add("a", text).error("a");
}

uint32_t answer(const Policy& policy, const std::string& stage, int syscall,
                const std::vector<uint64_t>& given = {}) {
  uint64_t arguments[6] = {};
  std::copy(given.begin(), given.end(), arguments);
  const PolicyFilter* found = filterOf(policy, stage);
  if (found == nullptr) throw std::runtime_error("no filter " + stage);
  const PolicyFilter& filter = *found;
  uint32_t decided = decide(filter, syscall, arguments);
  EXPECT_EQ(decided, evaluate(buildProgram(filter), SCMP_ARCH_X86_64, syscall, arguments));
  return decided;
}

constexpr uint32_t YES = SECCOMP_RET_ALLOW;
constexpr uint32_t DEATH = SECCOMP_RET_KILL_PROCESS;

std::string withFds(const std::string& rest) {
  return "actor: \"a\"\n"
         "fd { name: \"disk\" number: 16 kind: FILE }\n"
         "fd { name: \"kick\" number: 21 count: 14 kind: EVENTFD from: PLACED }\n" +
         rest;
}

TEST(Policy, RuleOfAStageHoldsInTheStagesBeforeIt) {
  Policy policy = Tree()
                      .add("a", withFds("start { rule { syscall: 'mmap' reason: 'x' } }\n"
                                        "ready { rule { syscall: 'munmap' reason: 'x' } }\n"
                                        "run { rule { syscall: 'read' reason: 'x' } }\n"))
                      .read("a");
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(mmap)));
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(munmap)));
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(read)));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(mmap)));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(munmap)));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(read)));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(munmap)));
  EXPECT_EQ(YES, answer(policy, "run", SCMP_SYS(read)));
}

TEST(Policy, RunThatEqualsReadyIsOneFilter) {
  Policy policy =
      Tree().add("a", withFds("run { rule { syscall: 'read' reason: 'x' } }")).read("a");
  ASSERT_EQ(2u, policy.filters.size());
  EXPECT_EQ("ready", policy.filters[1].stage);
}

TEST(Policy, NextFilterCanBeInstalledAndNoOtherAfterTheLast) {
  Policy policy = Tree()
                      .add("a", withFds("ready { rule { syscall: 'munmap' reason: 'x' } }\n"
                                        "run { rule { syscall: 'read' reason: 'x' } }\n"))
                      .read("a");
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(seccomp), {SECCOMP_SET_MODE_FILTER, 1}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(seccomp), {SECCOMP_SET_MODE_FILTER, 1}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(seccomp), {SECCOMP_SET_MODE_FILTER, 8}));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(seccomp), {SECCOMP_SET_MODE_FILTER, 1}));
}

TEST(Policy, ProgramIsExecutedOnceFromTheFirstNumberItsLimitForbids) {
  Policy policy = Tree()
                      .add("a", withFds("run { rule { syscall: 'read' reason: 'x' } }\n"
                                        "limit { resource: 'NOFILE' value: 90 }"))
                      .read("a");
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(execveat), {90}));
  EXPECT_EQ(DEATH, answer(policy, "start", SCMP_SYS(execveat), {89}));
  EXPECT_EQ(DEATH, answer(policy, "start", SCMP_SYS(execve)));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(execveat), {90}));
}

TEST(Policy, ProgramsNumberIsBeyondTheTableToo) {
  Policy policy = Tree()
                      .add("a", withFds("run { rule { syscall: 'read' reason: 'x' } }\n"
                                        "limit { resource: 'NOFILE' value: 66 }\n"
                                        "fd { name: 'handed' number: 66 count: 4 kind: FILE }"))
                      .read("a");
  for (uint64_t number = 0; number < 70; number++) {
    bool taken = false;
    for (const PolicyFd& fd : policy.fds)
      taken |= fd.number <= number && number < fd.number + fd.count;
    if (!taken) continue;
    EXPECT_EQ(DEATH, answer(policy, "start", SCMP_SYS(execveat), {number})) << number;
  }
}

TEST(Policy, Clone3FailsEverywhere) {
  Policy policy =
      Tree().add("a", withFds("run { rule { syscall: 'read' reason: 'x' } }")).read("a");
  for (const PolicyFilter& filter : policy.filters) {
    EXPECT_EQ(SECCOMP_RET_ERRNO | ENOSYS, answer(policy, filter.stage, SCMP_SYS(clone3)));
  }
}

TEST(Policy, FdRangeIsExactlyItsNumbers) {
  Policy policy =
      Tree().add("a", withFds("run { rule { syscall: 'read' fd: 'kick' reason: 'x' } }")).read("a");
  for (uint64_t fd = 0; fd < 80; fd++) {
    bool inRange = fd >= 21 && fd < 35;
    EXPECT_EQ(inRange ? YES : DEATH, answer(policy, "ready", SCMP_SYS(read), {fd})) << fd;
  }
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(read), {(uint64_t{1} << 32) + 21}));
}

TEST(Policy, ConditionsCompareAllBits) {
  Policy policy = Tree()
                      .add("a", withFds(R"(run {
    rule { syscall: "mmap" arg { index: 2 flags: "PROT_READ|PROT_WRITE" }
           arg { index: 3 value: "MAP_PRIVATE | MAP_ANONYMOUS" value: "0x4022" } reason: "x" }
    rule { syscall: "getrandom" arg { index: 1 at_most: "256" } reason: "x" }
    rule { syscall: "madvise" arg { index: 2 mask: "0xff" value: "4" } reason: "x" }
    rule { syscall: "dup3" fd: "disk" arg { index: 1 fd: "kick" } reason: "x" }
  })"))
                      .read("a");
  constexpr uint64_t HIGH = uint64_t{1} << 40;
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(mmap), {0, 0, 3, 0x22}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(mmap), {0, 0, 0, 0x4022}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(mmap), {0, 0, 7, 0x22}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(mmap), {0, 0, 3 | HIGH, 0x22}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(mmap), {0, 0, 3, 0x22 | HIGH}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(mmap), {0, 0, 3, 0x21}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(getrandom), {0, 256}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(getrandom), {0, 257}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(getrandom), {0, HIGH}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(madvise), {0, 0, 0x304}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(madvise), {0, 0, 0x305}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(dup3), {16, 22}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(dup3), {16, 20}));
}

TEST(Policy, FailingRuleYieldsToAllowingOnes) {
  Policy policy = Tree()
                      .add("a", withFds(R"(run {
    rule { syscall: "ioctl" fd: "disk" arg { index: 1 value: "BLKDISCARD" } reason: "x" }
    rule { syscall: "ioctl" fail: "ENOTTY" arg { index: 1 value: "TCGETS" } reason: "x" }
  })"))
                      .read("a");
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(ioctl), {16, 0x1277}));
  EXPECT_EQ(SECCOMP_RET_ERRNO | ENOTTY, answer(policy, "ready", SCMP_SYS(ioctl), {2, 0x5401}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(ioctl), {17, 0x1277}));
}

TEST(Policy, ThreadHasItsOwnRulesAndStartHasThemToo) {
  Tree tree;
  tree.add("shared", "run { rule { syscall: 'futex' reason: 'x' } }");
  tree.add("a",
           withFds("run { rule { syscall: 'read' reason: 'x' } }\n"
                   "thread { name: 'q' include: 'shared' rule { syscall: 'write' reason: 'x' } }"));
  Policy policy = tree.read("a");
  EXPECT_EQ(YES, answer(policy, "thread:q", SCMP_SYS(futex)));
  EXPECT_EQ(YES, answer(policy, "thread:q", SCMP_SYS(write)));
  EXPECT_EQ(DEATH, answer(policy, "thread:q", SCMP_SYS(read)));
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(write)));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(write)));
}

TEST(Policy, FileIncludedTwiceCountsOnce) {
  Tree tree;
  tree.add("base", "fd { name: 'log' number: 2 kind: PIPE }");
  tree.add("one", "include: 'base'").add("two", "include: 'base'");
  tree.add("a", "actor: 'a' include: 'one' include: 'two'");
  EXPECT_EQ(1u, tree.read("a").fds.size());
}

TEST(Policy, LimitsAreRead) {
  Policy policy = Tree().add("a", "actor: 'a' limit { resource: 'AS' value: 4096 }").read("a");
  ASSERT_EQ(1u, policy.limits.size());
  EXPECT_EQ(RLIMIT_AS, policy.limits[0].resource);
  EXPECT_EQ(4096u, policy.limits[0].value);
}

// Narrowing.

// What `a` allows, with `shared` included, which allows all of read in `run`.
Tree narrowing(const std::string& rest) {
  Tree tree;
  tree.add("shared", "run { rule { syscall: 'read' syscall: 'munmap' reason: 'x' } }");
  tree.add("a", withFds("include: 'shared'\n" + rest));
  return tree;
}

TEST(PolicyNarrow, WithoutConditionsRemovesFromItsStageOn) {
  Policy policy = narrowing("run { narrow { syscall: 'munmap' reason: 'x' } }").read("a");
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(munmap)));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(munmap)));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(munmap)));
  EXPECT_EQ(YES, answer(policy, "run", SCMP_SYS(read)));
}

TEST(PolicyNarrow, InStartHoldsInEveryStage) {
  Policy policy = narrowing("start { narrow { syscall: 'munmap' reason: 'x' } }").read("a");
  EXPECT_EQ(DEATH, answer(policy, "start", SCMP_SYS(munmap)));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(munmap)));
}

TEST(PolicyNarrow, WithConditionsTightens) {
  Policy policy =
      narrowing("ready { narrow { syscall: 'read' fd: 'disk' reason: 'x' } }").read("a");
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(read), {3}));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(read), {3}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(read), {16}));
  EXPECT_EQ(YES, answer(policy, "run", SCMP_SYS(read), {16}));
}

TEST(PolicyNarrow, ConditionsOnOneArgumentBothHold) {
  Tree tree;
  tree.add(
      "shared",
      "run { rule { syscall: 'recvfrom' arg { index: 2 flags: '7' }"
      " arg { index: 3 value: '1' value: '2' } arg { index: 1 at_most: '100' } reason: 'x' } }");
  tree.add(
      "a",
      withFds("include: 'shared' run { narrow { syscall: 'recvfrom' arg { index: 2 flags: '3' }"
              " arg { index: 3 value: '2' value: '4' } arg { index: 1 at_most: '50' }"
              " reason: 'x' } }"));
  Policy policy = tree.read("a");
  EXPECT_EQ(YES, answer(policy, "run", SCMP_SYS(recvfrom), {0, 50, 3, 2}));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(recvfrom), {0, 51, 3, 2}));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(recvfrom), {0, 50, 4, 2}));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(recvfrom), {0, 50, 3, 1}));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(recvfrom), {0, 50, 3, 4}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(recvfrom), {0, 100, 7, 1}));
}

TEST(PolicyNarrow, LeavesTheIncludersOwnRules) {
  Policy policy = narrowing(
                      "run { narrow { syscall: 'read' reason: 'x' }\n"
                      "rule { syscall: 'read' fd: 'kick' reason: 'x' } }")
                      .read("a");
  EXPECT_EQ(YES, answer(policy, "run", SCMP_SYS(read), {21}));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(read), {16}));
  EXPECT_EQ(YES, answer(policy, "ready", SCMP_SYS(read), {16}));
}

TEST(PolicyNarrow, OfAThreadReachesItsIncludes) {
  Policy policy = narrowing(
                      "thread { name: 'q' include: 'shared'"
                      " narrow { syscall: 'read' reason: 'x' } }")
                      .read("a");
  EXPECT_EQ(DEATH, answer(policy, "thread:q", SCMP_SYS(read)));
  EXPECT_EQ(YES, answer(policy, "thread:q", SCMP_SYS(munmap)));
  EXPECT_EQ(YES, answer(policy, "run", SCMP_SYS(read)));
}

TEST(PolicyNarrow, OfAnIncludedFileReachesOnlyWhatItIncludes) {
  Tree tree;
  tree.add("low", "run { rule { syscall: 'read' syscall: 'munmap' reason: 'x' } }");
  tree.add("high", "include: 'low' run { narrow { syscall: 'read' reason: 'x' } }");
  tree.add("a", withFds("include: 'high' run { rule { syscall: 'read' fd: 'disk' reason: 'x' } }"));
  Policy policy = tree.read("a");
  EXPECT_EQ(YES, answer(policy, "run", SCMP_SYS(read), {16}));
  EXPECT_EQ(DEATH, answer(policy, "run", SCMP_SYS(read), {21}));
}

// Budgets.

TEST(PolicyBudgets, CountCallsThatAreMadeAndThoseWithoutConditions) {
  Policy policy = Tree()
                      .add("a", withFds("run { rule { syscall: 'read' fd: 'disk' reason: 'x' }\n"
                                        "rule { syscall: 'read' fd: 'kick' reason: 'x' }\n"
                                        "rule { syscall: 'write' fd: 'kick' reason: 'x' }\n"
                                        "rule { syscall: 'brk' reason: 'x' }\n"
                                        "rule { syscall: 'uname' fail: 'EPERM' reason: 'x' } }\n"
                                        "budget { filter: 'run' syscalls: 3 unconditional: 1 }"))
                      .read("a");
  Reach reach = reachOf(*filterOf(policy, "run"));
  EXPECT_EQ((std::vector<std::string>{"read", "write"}), reach.conditional);
  EXPECT_EQ((std::vector<std::string>{"brk"}), reach.unconditional);
  ASSERT_EQ(1u, policy.budgets.size());
}

// Mistakes.

TEST(PolicyError, NamesFileLineAndColumn) {
  EXPECT_EQ(
      "a:2:1: there is no key \"actro\" here; there are actor, include, fd, start, ready, run, "
      "thread, limit, budget, namespaces, root, landlock, capability, mdwe, "
      "executable_seals, memory, io_uring, cgroup, minimum_kernel, restart and helper; the "
      "nearest is actor",
      errorOf("include: []\nactro: 'b'"));
  EXPECT_EQ("a:5:15: x86_64 has no system call \"raed\"",
            errorOf(withFds("\n run { rule { syscall: \"raed\" reason: 'x' } }")).substr(0, 40));
}

TEST(PolicyError, IsOneForEachMistake) {
  auto expect = [](const std::string& text, const std::string& part) {
    std::string error = errorOf(text);
    EXPECT_NE(std::string::npos, error.find(part)) << error << "\nlacks: " << part;
  };
  auto rule = [](const std::string& inside) { return withFds("run { rule { " + inside + " } }"); };
  expect("", "a:1:1: has no `actor`");
  expect("actor: 'A b'", "`actor` is \"A b\"; it has 1 to 32 lower-case letters");
  expect("actor: 'a' actor: 'b'", "a:1:12: `actor` is given twice; drop one");
  expect("actor: 7", "a:1:8: Expected string, got: 7; texts stand in quotes");
  expect(std::string("actor: 'a'\0", 11), "plain ASCII text");
  expect("actor: 'caf\xe9'", "plain ASCII text");
  expect(std::string(300000, '#'), "is longer than 262144 bytes");
  expect("actor: 'a' fd { name: 'x' number: 9 }", "fd \"x\" has no `kind`");
  expect("actor: 'a' fd { name: 'x' number: 9 kind: SPOON }",
         "a:1:43: \"SPOON\" is no `kind`; there are ANY, SOCKET, PIPE, FILE,");
  expect(withFds("fd { name: 'disk' number: 3 kind: FILE }"), "there is another fd \"disk\"");
  expect(withFds("fd { name: 'x' number: 30 kind: FILE }"),
         "fd \"x\" takes a number of fd \"kick\" (21 to 34)");
  expect(withFds("fd { name: 'x' number: 9 count: 0 kind: FILE }"), "`count` is 1 to 4096");
  expect("actor: 'a' limit { resource: 'SPOONS' value: 1 }", "there is no limit \"SPOONS\"");
  expect("actor: 'a' include: 'missing'", "there is no \"missing\"");
  expect(rule("reason: 'x'"), "a rule names a `syscall`");
  expect(rule("syscall: 'read'"), "the rule for read has no `reason`");
  expect(rule("syscall: 'read' fd: 'dsik' reason: 'x'"),
         "the profile has no fd \"dsik\"; it has disk, kick");
  expect(rule("syscall: 'mmap' arg { index: 6 value: '1' } reason: 'x'"), "`index` is 0 to 5");
  expect(rule("syscall: 'mmap' arg { index: 2 } reason: 'x'"), "exactly one of");
  expect(rule("syscall: 'mmap' arg { index: 2 value: '1' flags: '1' } reason: 'x'"),
         "exactly one of");
  expect(rule("syscall: 'mmap' arg { index: 2 value: 'PROT_RAED' } reason: 'x'"),
         "there is no constant \"PROT_RAED\"");
  expect(rule("syscall: 'mmap' arg { index: 2 value: '12x' } reason: 'x'"), "\"12x\" is not a");
  expect(rule("syscall: 'mmap' arg { index: 2 value: '99999999999999999999' } reason: 'x'"),
         "of 64 bits");
  expect(rule("syscall: 'mmap' arg { index: 2 mask: '1' value: '2' } reason: 'x'"), "can never be");
  expect(rule("syscall: 'read' fd: 'disk' arg { index: 0 value: '1' } reason: 'x'"),
         "another condition on argument 0");
  expect(rule("syscall: 'read' fail: 'EWHY' reason: 'x'"), "`fail` is \"EWHY\"; it is EACCES");
  expect(rule("syscall: 'ioctl' reason: 'x'"), "ioctls are named one by one");
  expect(rule("syscall: 'ioctl' arg { index: 1 flags: '255' } reason: 'x'"),
         "ioctls are named one by one");
  expect(rule("syscall: 'clone3' reason: 'x'"), "clone3 fails with ENOSYS");
  expect(rule("syscall: 'openat' reason: 'x'"), "openat is never allowed once an actor is ready");
  expect(withFds("thread { name: 'q' rule { syscall: 'socket' reason: 'x' } }"),
         "socket is never allowed");
  expect(withFds("thread { name: 'q' } thread { name: 'q' }"), "there is another thread \"q\"");
  // Conditions that say nothing, or that nothing meets.
  expect(rule("syscall: 'read' fd: 'disk' fd: 'disk' reason: 'x'"), "fd \"disk\" is given twice");
  expect(rule("syscall: 'lseek' arg { index: 2 value: '0' value: 'SEEK_SET' } reason: 'x'"),
         "the value is given twice");
  expect(rule("syscall: 'read' syscall: 'read' reason: 'x'"), "read is given twice");
  expect(rule("syscall: 'mmap' arg { index: 2 mask: '0' value: '0' } reason: 'x'"),
         "a mask without bits tests nothing");
  expect(rule("syscall: 'mmap' arg { index: 2 flags: '0xffffffffffffffff' } reason: 'x'"),
         "holds for every number");
  expect(rule("syscall: 'read' arg { index: 2 at_most: '0xffffffffffffffff' } reason: 'x'"),
         "holds for every number");
  expect(withFds("fd { name: 'ram' number: 9 kind: MEMFD closed: true }\n"
                 "run { rule { syscall: 'read' fd: 'ram' reason: 'x' } }"),
         "can never be: fd \"ram\" is closed once the actor is ready");
  expect(rule("syscall: 'ioctl' arg { index: 1 mask: '0xff' value: '1' } reason: 'x'"),
         "the bits of an ioctl's number have no meaning");
  expect(rule("syscall: 'ioctl' fail: 'ENOTTY' arg { index: 1 at_most: '9' } reason: 'x'"),
         "the bits of an ioctl's number have no meaning");
  // The same rule again.
  expect(
      withFds(
          "run { rule { syscall: 'read' fd: 'disk' reason: 'x' }\n"
          " rule { syscall: 'write' syscall: 'read' arg { index: 0 fd: 'disk' } reason: 'y' } }"),
      "a:5:26: the same rule for read stands at a:4:7; keep one of them");
  // Narrowing.
  expect(withFds("run { narrow { syscall: 'read' reason: 'x' } }"), "narrows nothing");
  expect(withFds("run { narrow { reason: 'x' } }"), "a narrow names a `syscall`");
  expect(withFds("run { narrow { syscall: 'read' } }"), "the narrow for read has no `reason`");
  expect(withFds("run { narrow { syscall: 'read' fail: 'EPERM' reason: 'x' } }"),
         "a narrow only takes away");
  // Budgets.
  expect(withFds("budget { filter: 'spoon' syscalls: 1 }"), "no filter \"spoon\"; it has start");
  expect(withFds("run { rule { syscall: 'read' syscall: 'brk' reason: 'x' } }\n"
                 "budget { filter: 'run' syscalls: 1 unconditional: 2 }"),
         "a:5:1: run lets 2 system calls through, and its budget is 1: brk, read");
  expect(withFds("run { rule { syscall: 'read' syscall: 'brk' reason: 'x' } }\n"
                 "budget { filter: 'run' syscalls: 2 unconditional: 1 }"),
         "run lets 2 system calls without a condition on an argument through");
  // Encodings.
  expect("\xff\xfe" + std::string("a\0c\0", 4), "is UTF-16");
  expect("\xef\xbb\xbf actor: 'a'", "here is a byte 0xef");
  expect(std::string(10 << 20, '\x01'), "is longer than 262144 bytes");
}

TEST(PolicyError, EveryMistakeIsFound) {
  Tree tree;
  tree.add("a", withFds("run { rule { syscall: 'raed' reason: 'x' }\n"
                        "rule { syscall: 'read' }\n"
                        "rule { syscall: 'read' fd: 'kcik' reason: 'x' } }\n"
                        "limit { resource: 'X' }"));
  PolicyReading reading = tree.examine("a");
  ASSERT_EQ(4u, reading.errors.size());
  EXPECT_EQ(7, reading.errors[0].where.line);
  EXPECT_EQ(4, reading.errors[1].where.line);
  EXPECT_EQ(5, reading.errors[2].where.line);
  EXPECT_EQ(6, reading.errors[3].where.line);
}

TEST(PolicyError, SharedRuleSetHasNoBudget) {
  Tree tree;
  tree.add("a", "actor: 'a' include: 'b'").add("b", "budget { filter: 'run' }");
  EXPECT_NE(std::string::npos, tree.error("a").find("a budget stands in the profile of an actor"));
}

TEST(PolicyError, TooManyCombinationsAreRefusedSoon) {
  std::string text;
  for (int i = 0; i < 60; i++) {
    text += "rule { syscall: 'write' arg { index: 1 value: '" + std::to_string(i) + "' }";
    for (int index : {2, 3}) {
      text += " arg { index: " + std::to_string(index);
      for (int value = 0; value < 30; value++)
        text += " value: '" + std::to_string(value) + "'";
      text += " }";
    }
    text += " reason: 'x' }\n";
  }
  EXPECT_NE(std::string::npos, errorOf(withFds("run {" + text + "}")).find("more than 4096"));
}

TEST(PolicyError, DirectoryAndDeviceAreNoProfiles) {
  EXPECT_NE("", Tree().error("."));
  Tree tree;
  std::filesystem::create_symlink("/dev/zero", tree.folder() + "/a");
  EXPECT_NE(std::string::npos, tree.error("a").find("is longer than 262144 bytes"));
}

TEST(PolicyError, IncludeLoopIsNamed) {
  Tree tree;
  tree.add("a", "actor: 'a'\ninclude: 'b'").add("b", "include: 'a'");
  EXPECT_EQ("b:1:1: \"a\" includes itself through this line; drop one include of the loop",
            tree.error("a"));
}

TEST(PolicyError, ProfileOfAnotherActorIsNoRuleSet) {
  Tree tree;
  tree.add("a", "actor: 'a' include: 'b'").add("b", "actor: 'b'");
  EXPECT_NE(std::string::npos, tree.error("a").find("this is the profile of \"b\""));
}

TEST(PolicyError, GarbageIsOneError) {
  unsigned seed = 1;
  for (int round = 0; round < 200; round++) {
    std::string text;
    for (int i = 0; i < 200; i++) {
      seed = seed * 1103515245 + 12345;
      text += "actor:{}'\"include fd rule \n#0x9"[seed / 65536 % 31];
    }
    EXPECT_NE("", errorOf(text));
  }
}

}  // namespace
}  // namespace troupe::sandbox
