#include "sandbox/refused_call.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <string>

#include "sandbox/policy.h"
#include "sandbox/profile_source.h"
#include "sandbox/syscall_names.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox {
namespace {

constexpr uint32_t IN_RUN = 3;  // filters

CallRegisters call(uint64_t number, std::initializer_list<uint64_t> arguments) {
  CallRegisters registers = {AUDIT_ARCH_X86_64, number, 0, {}};
  std::copy(arguments.begin(), arguments.end(), registers.arguments);
  return registers;
}

struct Explained {
  std::string stage, call, remedy;
};

Explained explain(const CallRegisters& registers, uint32_t filters = IN_RUN, bool isMain = true) {
  KJ_IF_MAYBE (refused, explainCall(SAMPLE_PROFILE, registers, isMain, filters)) {
    return {refused->stage.cStr(), refused->call.cStr(), refused->remedy.cStr()};
  }
  return {};
}

// The sample's profile with one more rule in `run`, and the files it includes.
class WithRule final: public ProfileFiles {
 public:
  explicit WithRule(const std::string& rule) : rule(rule) {}

  std::optional<std::string> read(const std::string& path) const override {
    auto text = FolderFiles("").read(path);
    if (text && path == SAMPLE_PROFILE.source) {
      constexpr char BEGIN[] = "\nrun {";
      text->insert(text->find(BEGIN) + sizeof(BEGIN) - 1, "\n" + rule + "\n");
    }
    return text;
  }

 private:
  std::string rule;
};

bool allows(const PolicyFilter& filter, const CallRegisters& registers) {
  for (const Verdict& verdict : filter.verdicts) {
    bool holds = verdict.syscall == int(registers.number) && verdict.error == 0;
    for (const Condition& condition : verdict.conditions)
      holds = holds && condition.holds(registers.arguments);
    if (holds) return true;
  }
  return false;
}

TEST(RefusedCall, RemedyAllowsTheCallAndCompiles) {
  for (auto& registers : {
           call(SYS_getuid, {}),
           call(SYS_ioctl, {3, KVM_RUN, 0}),
           call(SYS_ioctl, {16, 0x12345678, 0}),
           call(SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, 16, 0}),
           call(SYS_mmap, {0, 4096, PROT_NONE, MAP_ANONYMOUS, ~0ull, 0}),
           call(SYS_fcntl, {19, F_SETPIPE_SZ, 1}),
           call(SYS_setsockopt, {77, 1, 999, 0, 4}),
           call(SYS_clone, {0x11, 0, 0, 0, 0}),
           call(SYS_getcpu, {1, 2, 3}),
       }) {
    Explained told = explain(registers);
    SCOPED_TRACE(told.call + ": " + told.remedy);
    ASSERT_EQ(0u, told.remedy.find("add to sandbox/testing/sample.profile, run: rule {"));
    WithRule files(told.remedy.substr(told.remedy.find("rule {")));
    PolicyReading reading = examinePolicy(files, SAMPLE_PROFILE.source);
    for (auto& error : reading.errors)
      ADD_FAILURE() << error.what();
    ASSERT_TRUE(reading.errors.empty());
    EXPECT_TRUE(allows(*filterOf(reading.policy, "run"), registers));
  }
}

TEST(RefusedCall, CallThatTheStageAllowsIsNotTheReason) {
  EXPECT_EQ("", explain(call(SYS_pread64, {16, 0, 1, 0})).call);
  EXPECT_EQ("", explain(call(SYS_pread64, {3, 0, 1, 0}), 1).call);
}

TEST(RefusedCall, WhatNoActorMayDoOnceItIsReadyHasNoRule) {
  auto registers = call(SYS_openat, {0xffffff9c, 0x7fff0000, O_RDWR | O_CLOEXEC, 0});
  Explained told = explain(registers);
  EXPECT_EQ("openat(AT_FDCWD, 0x7fff0000, O_RDWR|O_CLOEXEC, 0)", told.call);
  EXPECT_EQ(0u, told.remedy.find("no profile may allow openat once an actor is ready"));
  EXPECT_EQ(0u, explain(registers, 1).remedy.find("add to "));
}

TEST(RefusedCall, MappingOfAFileHasNoRuleUnlessAllOfGuestRamMayBeReached) {
  auto registers = call(SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED, 16, 0});
  EXPECT_EQ(0u,
            explain(registers).remedy.find("no profile may allow it once an actor is ready that "
                                           "may not reach all of guest RAM"));
  EXPECT_EQ(0u, explain(registers, 1).remedy.find("add to "));
}

TEST(RefusedCall, StageIsThatOfTheLastFilter) {
  EXPECT_EQ("start", explain(call(SYS_getuid, {}), 1).stage);
  EXPECT_EQ("ready", explain(call(SYS_getuid, {}), 2).stage);
  EXPECT_EQ("run", explain(call(SYS_getuid, {}), 3).stage);
  EXPECT_EQ("run", explain(call(SYS_getuid, {}), 4).stage);
}

TEST(RefusedCall, ThreadIsJudgedByItsOwnFilter) {
  EXPECT_EQ("thread:worker", explain(call(SYS_getuid, {}), 2, false).stage);
  EXPECT_EQ("start", explain(call(SYS_getuid, {}), 1, false).stage);
}

TEST(RefusedCall, FdsOfARangeHaveTheirIndex) {
  EXPECT_EQ("readv(events[2] (20), 0x1000, 1)", explain(call(SYS_readv, {20, 4096, 1})).call);
}

TEST(RefusedCall, Words) {
  EXPECT_EQ("ioctl(rpc (3), KVM_RUN, 0x0)", explain(call(SYS_ioctl, {3, KVM_RUN, 0})).call);
  EXPECT_EQ("clone(CLONE_VM|0x11, 0x0, 0x0, 0x0, 0x0)",
            explain(call(SYS_clone, {0x111, 0, 0, 0, 0})).call);
  EXPECT_EQ("mmap(0x0, 1, PROT_NONE, MAP_SHARED_VALIDATE, -1, 0)",
            explain(call(SYS_mmap, {0, 1, 0, 3, ~0ull, 0})).call);
}

TEST(RefusedCall, CallsWithoutANameAreNumbers) {
  EXPECT_EQ("system call 4000, which is younger than this build and has no name in it",
            explain(call(4000, {})).call);
  EXPECT_EQ("", explain(call(4000, {})).remedy);
  EXPECT_EQ("call 39 by the x32 convention, which no profile can allow",
            explain(call(1 << 30 | 39, {})).call);
}

TEST(SyscallNames, AreFoundBothWays) {
  EXPECT_STREQ("openat", syscallName(SYS_openat));
  EXPECT_EQ(SYS_openat, syscallNumber("openat"));
  EXPECT_EQ(-1, syscallNumber("opneat"));
  EXPECT_EQ(nullptr, syscallName(4000));
  EXPECT_EQ(nullptr, syscallName(~0ull));
  for (int number = 0; number < 400; number++) {
    const char* name = syscallName(number);
    if (name != nullptr) {
      EXPECT_EQ(number, syscallNumber(name)) << name;
    }
  }
}

}  // namespace
}  // namespace troupe::sandbox
