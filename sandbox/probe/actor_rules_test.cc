// The rules of a profile, one by one, in processes that the launcher started and that took their
// filters themselves. See actor_probe_test.cc.

#include <gtest/gtest.h>
#include <stdio.h>

#include <algorithm>
#include <iterator>

#include "sandbox/probe/cases.h"
#include "sandbox/probe/jail_stage.h"
#include "sandbox/probe/probe_bench.h"
#include "sandbox/probe/subject.h"

namespace troupe::sandbox::probe {
namespace {

// For each rule of a stage a call that keeps it, and for each of its conditions one that breaks it
// and nothing else.
struct RuleCalls {
  std::vector<RawCall> keeping;
  std::vector<RawCall> breaking;
  // Conditions that cannot be broken alone: whatever else the argument is, another rule allows it.
  std::vector<RawCall> coveredByOthers;
};

RuleCalls callsOf(const JailStage& stage) {
  RuleCalls calls;
  size_t turn = 0;
  for (const Verdict& verdict : stage.latest().verdicts) {
    VerdictCases cases = casesOf(verdict);
    calls.keeping.push_back(cases.passing);
    for (const auto& ways : cases.violating) {
      std::vector<RawCall> deadly;
      std::copy_if(ways.begin(), ways.end(), std::back_inserter(deadly),
                   [&](const RawCall& call) { return isKill(wanted(stage, call)); });
      if (deadly.empty()) {
        calls.coveredByOthers.push_back(ways.front());
      } else {
        calls.breaking.push_back(deadly[turn++ % deadly.size()]);
      }
    }
  }
  return calls;
}

TEST(JailProbe, JAIL01_EveryRuleHoldsInTheRealJail) {
  ProbeBench bench(SUBJECT.profile);
  for (const JailStage& stage : stagesOfSubject()) {
    SCOPED_TRACE(stage.name);
    RuleCalls calls = callsOf(stage);
    EXPECT_FALSE(calls.keeping.empty());
    for (const RawCall& call : calls.keeping)
      EXPECT_FALSE(isKill(wanted(stage, call))) << describe(call);
    expectAsWritten(stage, calls.keeping, bench.inOrder(stage.name, calls.keeping));
    expectAsWritten(stage, calls.breaking, bench.inProcesses(stage.name, calls.breaking));
    printf("%s, %s: %zu rules kept, %zu of %zu conditions broken\n", SUBJECT.profile.actor,
           stage.name.c_str(), calls.keeping.size(), calls.breaking.size(),
           calls.breaking.size() + calls.coveredByOthers.size());
    for (const RawCall& call : calls.coveredByOthers)
      printf("  not broken, another rule allows it: %s\n", describe(call).c_str());
  }
}

// Every 16th number, so that no habit of the nursery hides what a real start does.
TEST(JailProbe, JAIL01_NumbersWithoutARuleKillTheRealProcess) {
  ProbeBench bench(SUBJECT.profile);
  for (const JailStage& stage : stagesOfSubject()) {
    std::vector<RawCall> calls;
    for (int64_t number = stage.name.size() % 16; number < NUMBER_COUNT; number += 16) {
      RawCall call = {number, {}};
      if (isKill(wanted(stage, call))) calls.push_back(call);
    }
    expectAsWritten(stage, calls, bench.inProcesses(stage.name, calls));
  }
}

}  // namespace
}  // namespace troupe::sandbox::probe
