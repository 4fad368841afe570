#include "sandbox/filter_program.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include <random>

namespace troupe::sandbox {
namespace {

Condition equal(uint32_t argument, uint64_t value) {
  return {argument, Condition::MASKED_EQUAL, ~uint64_t{0}, value};
}

// Rules of every shape, more than one for a call, that share arguments and values.
PolicyFilter mixed() {
  return {"run",
          {{SCMP_SYS(read), {}, 0},
           {SCMP_SYS(write), {equal(0, 2)}, 0},
           {SCMP_SYS(write), {{0, Condition::MASKED_EQUAL, ~uint64_t{7}, 16}}, 0},
           {SCMP_SYS(write), {equal(0, 3), equal(2, 8)}, 0},
           {SCMP_SYS(ioctl), {equal(0, 16), equal(1, 0xae80)}, 0},
           {SCMP_SYS(ioctl), {equal(0, 17), equal(1, 0x4004ae99)}, 0},
           {SCMP_SYS(ioctl), {equal(1, 0x5401)}, ENOTTY},
           {SCMP_SYS(mmap), {{2, Condition::MASKED_EQUAL, ~uint64_t{3}, 0}, equal(3, 0x22)}, 0},
           {SCMP_SYS(getrandom), {{1, Condition::AT_MOST, 0, 65536}, equal(2, 0)}, 0},
           {SCMP_SYS(clone3), {}, ENOSYS}},
          {}};
}

TEST(FilterProgram, AgreesWithItsRulesOnEveryCallAndRandomArguments) {
  PolicyFilter filter = mixed();
  auto program = buildProgram(filter);
  std::mt19937_64 random(1);
  const uint64_t values[] = {0,
                             1,
                             2,
                             3,
                             8,
                             15,
                             16,
                             17,
                             23,
                             24,
                             0x22,
                             0x5401,
                             0xae80,
                             65536,
                             65537,
                             0x4004ae99,
                             0x4004ae99ull | 1ull << 32,
                             ~0ull,
                             1ull << 32,
                             16 | 1ull << 63};
  auto any = [&]() -> uint64_t {
    return random() % 4 == 0 ? random() : values[random() % (sizeof(values) / sizeof(*values))];
  };
  for (int syscall = 0; syscall < 470; syscall++) {
    bool named = false;
    for (const Verdict& verdict : filter.verdicts)
      named |= verdict.syscall == syscall;
    for (int round = 0; round < (named ? 20000 : 50); round++) {
      uint64_t arguments[6] = {any(), any(), any(), any(), any(), any()};
      ASSERT_EQ(decide(filter, syscall, arguments),
                evaluate(program, AUDIT_ARCH_X86_64, syscall, arguments))
          << syscall;
    }
  }
}

void expectAgreement(const PolicyFilter& filter, uint64_t (&arguments)[6],
                     const std::vector<sock_filter>& program) {
  for (int syscall = 0; syscall < 20; syscall++) {
    ASSERT_EQ(decide(filter, syscall, arguments),
              evaluate(program, AUDIT_ARCH_X86_64, syscall, arguments))
        << syscall << " " << arguments[0] << " " << arguments[1];
  }
}

TEST(FilterProgram, SomeCallsAreAllowedAndAllOthersFail) {
  auto program = buildProgram({"run", {{1, {equal(0, 15)}, 0}, {1, {}, EPERM}}, {}});
  uint64_t named[6] = {15}, other[6] = {16};
  EXPECT_EQ(SECCOMP_RET_ALLOW, evaluate(program, AUDIT_ARCH_X86_64, 1, named));
  EXPECT_EQ(SECCOMP_RET_ERRNO | uint32_t{EPERM}, evaluate(program, AUDIT_ARCH_X86_64, 1, other));
}

TEST(FilterProgram, SeveralGreatestValuesOfOneCall) {
  Condition few{1, Condition::AT_MOST, 0, 16};
  Condition many{1, Condition::AT_MOST, 0, 0x100000040};
  Condition most{2, Condition::AT_MOST, 0, 0xffffffff};
  PolicyFilter filter{
      "run", {{1, {equal(0, 3), many}, 0}, {1, {few}, 0}, {1, {many, most}, EPERM}}, {}};
  auto program = buildProgram(filter);
  for (uint64_t first : {3, 4}) {
    for (uint64_t size : {0ull, 16ull, 17ull, 0xffffffffull, 0x100000000ull, 0x100000040ull,
                          0x100000041ull, 0x200000000ull, ~0ull}) {
      for (uint64_t third : {0ull, 0xffffffffull, 0x100000000ull}) {
        uint64_t arguments[6] = {first, size, third};
        expectAgreement(filter, arguments, program);
      }
    }
  }
}

TEST(FilterProgram, JumpsAreAsLongAsTheyNeedToBe) {
  PolicyFilter filter{"run", {}, {}};
  for (int syscall = 0; syscall < 20; syscall += 3) {
    for (uint64_t value = 0; value < 100; value++)
      filter.verdicts.push_back({syscall, {equal(0, 7), equal(1, value * 5)}, 0});
    filter.verdicts.push_back({syscall, {equal(0, 9)}, EPERM});
  }
  auto program = buildProgram(filter);
  EXPECT_GT(program.size(), 2000u);
  for (uint64_t first : {7, 8, 9}) {
    for (uint64_t second = 0; second < 505; second++) {
      uint64_t arguments[6] = {first, second};
      expectAgreement(filter, arguments, program);
    }
  }
}

// Conditions of every kind at random, whose values lie close together so that they meet.
TEST(FilterProgram, AgreesWithRandomRules) {
  std::mt19937_64 random(7);
  auto value = [&]() -> uint64_t {
    uint64_t high = random() % 3, low = random() % 4;
    return high << 32 | low;
  };
  for (int round = 0; round < 2000; round++) {
    PolicyFilter filter{"run", {}, {}};
    for (size_t i = 0, count = 1 + random() % 12; i < count; i++) {
      Verdict verdict{int(random() % 5), {}, random() % 3 == 0 ? EPERM : 0};
      for (uint32_t argument = 0; argument < 3; argument++) {
        uint64_t mask = random() % 2 == 0 ? ~uint64_t{0} : ~uint64_t{0} << random() % 3;
        if (random() % 2 == 0) continue;
        if (random() % 3 == 0) {
          verdict.conditions.push_back({argument, Condition::AT_MOST, 0, value()});
        } else {
          verdict.conditions.push_back({argument, Condition::MASKED_EQUAL, mask, value() & mask});
        }
      }
      filter.verdicts.push_back(verdict);
    }
    auto program = buildProgram(filter);
    for (int call = 0; call < 100; call++) {
      uint64_t arguments[6] = {value(), value(), value(), value(), value(), value()};
      expectAgreement(filter, arguments, program);
    }
  }
}

TEST(FilterProgram, TooLongForTheKernelIsAnErrorOfTheLongestRule) {
  PolicyRule rule{"run", {"a", 7, 3}, {"a", 7, 10}, "read", 0, {}, 0, "", "x", {}};
  rule.arguments.push_back({1, "", {}, {}});
  PolicyFilter filter{"run", {}, {}};
  for (uint64_t value = 0; value < 1024; value++)
    rule.arguments[0].alternatives.push_back(equal(1, value << 32 | value));
  filter.rules = {rule};
  filter.verdicts = rule.verdicts();
  try {
    buildProgram(filter);
    ADD_FAILURE();
  } catch (const ProfileError& error) {
    EXPECT_EQ(7, error.where.line);
    EXPECT_NE(std::string::npos, error.message.find("the kernel takes 4096")) << error.message;
  }
}

TEST(FilterProgram, OtherConventionsDie) {
  auto program = buildProgram(mixed());
  uint64_t none[6] = {};
  EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, evaluate(program, AUDIT_ARCH_I386, 0, none));
  EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, evaluate(program, AUDIT_ARCH_AARCH64, 0, none));
  EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, evaluate(program, AUDIT_ARCH_X86_64, 0x40000000, none));
  EXPECT_EQ(SECCOMP_RET_KILL_PROCESS, evaluate(program, AUDIT_ARCH_X86_64, -1, none));
  EXPECT_EQ(SECCOMP_RET_ALLOW, evaluate(program, AUDIT_ARCH_X86_64, 0, none));
}

}  // namespace
}  // namespace troupe::sandbox
