// For every filter of every profile built in: what `explain` reads out of the rules is what the
// program that the kernel gets answers.
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>

#include <random>

#include "sandbox/filter_program.h"
#include "sandbox/policy.h"
#include "sandbox/profile_source.h"
#include "sandbox/tool/explain.h"
#include "vmm/policy/catalogue.h"

namespace troupe::sandbox {
namespace {

std::vector<Policy> allPolicies() {
  std::vector<Policy> policies;
  for (const CataloguedActor& actor : builtInActors())
    policies.push_back(readPolicy(BuiltInFiles(), actor.path));
  return policies;
}

uint32_t explained(const PolicyFilter& filter, int syscall, const uint64_t (&values)[6]) {
  std::vector<GivenArgument> arguments;
  for (uint64_t value : values)
    arguments.push_back({true, value, ""});
  Explanation explanation = explainCall(filter, syscall, arguments);
  switch (explanation.answer) {
    case Explanation::ALLOWED:
      return SECCOMP_RET_ALLOW;
    case Explanation::FAILS:
      return SECCOMP_RET_ERRNO | explanation.error;
    case Explanation::KILLED:
      return SECCOMP_RET_KILL_PROCESS;
    case Explanation::DEPENDS:
      break;
  }
  ADD_FAILURE() << "undecided, though all arguments are known";
  return 0;
}

// Values that rules of the filter speak of, and their neighbours.
std::vector<uint64_t> interesting(const PolicyFilter& filter) {
  std::vector<uint64_t> values{0, 1, ~uint64_t{0}, uint64_t{1} << 32, uint64_t{1} << 63};
  for (const Verdict& verdict : filter.verdicts) {
    for (const Condition& condition : verdict.conditions) {
      uint64_t value = condition.value;
      for (uint64_t near : {value, value + 1, value - 1, value | ~condition.mask,
                            value | uint64_t{1} << 32, value ^ 4}) {
        values.push_back(near);
      }
    }
  }
  return values;
}

TEST(Explain, AgreesWithTheProgramOnRandomCalls) {
  std::mt19937_64 random(7);
  auto policies = allPolicies();
  ASSERT_LE(6u, policies.size());
  size_t allowed = 0;
  for (const Policy& policy : policies) {
    for (const PolicyFilter& filter : policy.filters) {
      auto program = buildProgram(filter);
      auto values = interesting(filter);
      for (int round = 0; round < 40000; round++) {
        bool named = random() % 8 != 0;
        int syscall = named ? filter.verdicts[random() % filter.verdicts.size()].syscall
                            : int(random() % 470);
        uint64_t arguments[6];
        for (uint64_t& argument : arguments)
          argument = random() % 10 == 0 ? random() : values[random() % values.size()];
        // Half of the calls begin from what a rule wants, so that many of them are allowed.
        const Verdict& verdict = filter.verdicts[random() % filter.verdicts.size()];
        if (random() % 2 == 0) {
          syscall = verdict.syscall;
          for (const Condition& condition : verdict.conditions)
            arguments[condition.argument] = condition.value;
        }
        uint32_t wanted = evaluate(program, AUDIT_ARCH_X86_64, syscall, arguments);
        allowed += wanted == SECCOMP_RET_ALLOW;
        ASSERT_EQ(wanted, explained(filter, syscall, arguments))
            << policy.actor << " " << filter.stage << " " << syscall;
      }
    }
  }
  EXPECT_LT(100000u, allowed);
}

}  // namespace
}  // namespace troupe::sandbox
