#include "sandbox/policy.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "sandbox/filter_program.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {
namespace {

// A folder with profiles, gone with the test.
class Tree {
 public:
  Tree() {
    char path[] = "/tmp/policy-test-XXXXXX";
    root = mkdtemp(path);
  }
  ~Tree() { std::filesystem::remove_all(root); }

  Tree& add(const std::string& name, const std::string& text) {
    std::ofstream(root + "/" + name) << text;
    return *this;
  }
  Policy read(const std::string& name) { return readPolicy(root, name); }

  // The error of reading `name`, without the folder.
  std::string error(const std::string& name) {
    try {
      readPolicy(root, name);
    } catch (const ProfileError& error) {
      std::string text = error.what();
      return text.compare(0, root.size() + 1, root + "/") == 0 ? text.substr(root.size() + 1)
                                                               : text;
    }
    return "";
  }

 private:
  std::string root;
};

std::string errorOf(const std::string& text) {
  return Tree().add("a", text).error("a");
}

const PolicyFilter& filterOf(const Policy& policy, const std::string& stage) {
  for (const PolicyFilter& filter : policy.filters) {
    if (filter.stage == stage) return filter;
  }
  throw std::runtime_error("no filter " + stage);
}

uint32_t answer(const Policy& policy, const std::string& stage, int syscall,
                const std::vector<uint64_t>& given = {}) {
  uint64_t arguments[6] = {};
  std::copy(given.begin(), given.end(), arguments);
  const PolicyFilter& filter = filterOf(policy, stage);
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

TEST(Policy, ProgramIsExecutedOnceFromItsOwnFd) {
  Policy policy =
      Tree().add("a", withFds("run { rule { syscall: 'read' reason: 'x' } }")).read("a");
  EXPECT_EQ(YES, answer(policy, "start", SCMP_SYS(execveat), {17}));
  EXPECT_EQ(DEATH, answer(policy, "start", SCMP_SYS(execveat), {16}));
  EXPECT_EQ(DEATH, answer(policy, "start", SCMP_SYS(execve)));
  EXPECT_EQ(DEATH, answer(policy, "ready", SCMP_SYS(execveat), {17}));
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

// Mistakes.

TEST(PolicyError, NamesFileLineAndColumn) {
  EXPECT_EQ("a:2:5: Message type \"troupe.policy.Profile\" has no field named \"nmae\".",
            errorOf("actor: 'a'\nnmae: 'b'"));
  EXPECT_EQ("a:5:15: x86_64 has no system call \"raed\"",
            errorOf(withFds("\n run { rule { syscall: \"raed\" reason: 'x' } }")).substr(0, 44));
}

TEST(PolicyError, IsOneForEachMistake) {
  auto expect = [](const std::string& text, const std::string& part) {
    std::string error = errorOf(text);
    EXPECT_NE(std::string::npos, error.find(part)) << error << "\nlacks: " << part;
  };
  auto rule = [](const std::string& inside) { return withFds("run { rule { " + inside + " } }"); };
  expect("", "`actor` is \"\"");
  expect("actor: 'A b'", "`actor` is \"A b\"; it has 1 to 32 lower-case letters");
  expect("actor: 'a' actor: 'b'", "specified multiple times");
  expect("actor: 7", "Expected string");
  expect(std::string("actor: 'a'\0", 11), "plain ASCII text");
  expect("actor: 'caf\xe9'", "plain ASCII text");
  expect(std::string(300000, '#'), "is 300000 bytes long");
  expect("actor: 'a' fd { name: 'x' number: 9 }", "fd \"x\" has no `kind`");
  expect("actor: 'a' fd { name: 'x' number: 9 kind: SPOON }", "Unknown enumeration value");
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
}

TEST(PolicyError, IncludeLoopIsNamed) {
  Tree tree;
  tree.add("a", "actor: 'a'\ninclude: 'b'").add("b", "include: 'a'");
  EXPECT_EQ("b:1:1: \"a\" includes itself through this line", tree.error("a"));
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
