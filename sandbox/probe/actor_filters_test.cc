// The compiled filters of a profile against the rules as they stand there, call by call. Needs no
// jail: see actor_probe_test.cc for what the kernel makes of them.

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>

#include <algorithm>
#include <random>
#include <set>

#include "sandbox/filter_program.h"
#include "sandbox/probe/cases.h"
#include "sandbox/probe/jail_stage.h"

namespace troupe::sandbox::probe {
namespace {

constexpr uint64_t BIT = 1;

// Read as a person reads it: some rule names the call, and each argument has one of the values that
// the rule gives it. Where an allowing and a failing rule both fit, the kernel's answer may be
// either, so both are named.
struct Reading {
  bool allowed = false;
  std::set<int> errors;

  bool agrees(uint32_t word) const {
    if (word == SECCOMP_RET_ALLOW) return allowed;
    if ((word & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO) {
      return errors.count(int(word & SECCOMP_RET_DATA)) != 0;
    }
    return word == SECCOMP_RET_KILL_PROCESS && !allowed && errors.empty();
  }
};

bool fits(const PolicyRule& rule, const uint64_t (&arguments)[6]) {
  return std::all_of(rule.arguments.begin(), rule.arguments.end(), [&](const PolicyArgument& one) {
    return std::any_of(one.alternatives.begin(), one.alternatives.end(),
                       [&](const Condition& condition) { return condition.holds(arguments); });
  });
}

Reading readingOf(const PolicyFilter& filter, int64_t number, const uint64_t (&arguments)[6]) {
  Reading reading;
  for (const PolicyRule& rule : filter.rules) {
    if (rule.syscall != number || !fits(rule, arguments)) continue;
    if (rule.error == 0) {
      reading.allowed = true;
    } else {
      reading.errors.insert(rule.error);
    }
  }
  return reading;
}

// Values at which some condition of the filter changes its mind, and their like in the upper half.
std::vector<uint64_t> interestingValues(const PolicyFilter& filter) {
  std::set<uint64_t> values = {0,          1,          2,         0x7fffffff,
                               0x80000000, 0xffffffff, BIT << 63, ~uint64_t{0}};
  for (const PolicyRule& rule : filter.rules) {
    for (const PolicyArgument& argument : rule.arguments) {
      for (const Condition& condition : argument.alternatives) {
        uint64_t lowest = condition.mask & -condition.mask;
        for (uint64_t near : {condition.value, condition.value - 1, condition.value + 1,
                              condition.value | ~condition.mask, condition.value ^ lowest})
          for (uint64_t high : {uint64_t{0}, BIT << 32, BIT << 63})
            values.insert(near ^ high);
      }
    }
  }
  return std::vector<uint64_t>(values.begin(), values.end());
}

class Grid {
 public:
  explicit Grid(const JailStage& stage)
      : filter(stage.latest()),
        program(stage.programs.back().program,
                stage.programs.back().program + stage.programs.back().length),
        values(interestingValues(filter)) {}

  // The number of calls tried; the first that differ are in `differences`.
  size_t tryAll() {
    for (int64_t number = -1; number < 600; number++)
      tryNumber(number);
    for (int64_t number = 0; number < 600; number++)
      compare({number | X32_CALL, {}});
    return tried;
  }

  std::string differences;

 private:
  void tryNumber(int64_t number) {
    // At random, then one argument at a time away from each way of keeping a rule.
    bool named = false;
    for (const PolicyRule& rule : filter.rules)
      named |= rule.syscall == number;
    for (int round = 0; round < (named ? 20000 : 40); round++) {
      RawCall call = {number, {}};
      for (uint64_t& argument : call.arguments)
        argument = any();
      compare(call);
    }
    if (!named) return;
    for (const Verdict& verdict : filter.verdicts) {
      if (verdict.syscall == number) tryAround(casesOf(verdict).passing);
    }
  }

  void tryAround(const RawCall& passing) {
    compare(passing);
    for (size_t i = 0; i < 6; i++) {
      RawCall call = passing;
      for (uint64_t value : values) {
        call.arguments[i] = value;
        compare(call);
      }
    }
  }

  uint64_t any() { return random() % 8 == 0 ? random() : values[random() % values.size()]; }

  void compare(const RawCall& call) {
    tried++;
    uint32_t word = evaluate(program, AUDIT_ARCH_X86_64, int(call.number), call.arguments);
    if (readingOf(filter, call.number, call.arguments).agrees(word)) return;
    if (differences.size() < 2000) {
      differences += describe(call) + " is answered with " + std::to_string(word) + "\n";
    }
  }

  const PolicyFilter& filter;
  std::vector<sock_filter> program;
  std::vector<uint64_t> values;
  std::mt19937_64 random{1};
  size_t tried = 0;
};

TEST(JailFilters, JAIL01_CompiledFiltersSayWhatTheRulesSay) {
  for (const JailStage& stage : stagesOfSubject()) {
    Grid grid(stage);
    size_t tried = grid.tryAll();
    EXPECT_EQ("", grid.differences) << stage.name;
    EXPECT_GT(tried, 100000u);
    printf("%s: %zu calls\n", stage.name.c_str(), tried);
  }
}

}  // namespace
}  // namespace troupe::sandbox::probe
