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
