#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/watch/call_record.h"

namespace troupe::sandbox {

// Calls of one kind that were seen, on the way to a rule that allows them.
struct LearnedRule {
  std::string place;  // where the rule stands: "start", "ready", "run", "thread:NAME"
  std::string syscall;

  // Of each argument: fds by name, or words; empty where it may be anything.
  std::vector<std::string> fds[6];
  std::set<uint64_t> values[6];
  uint64_t atMost[6] = {};  // 0: no condition

  bool byChance = false;  // needed here or not: other runs may need it where this one did not
  uint64_t count = 0;
  std::set<std::string> threads;          // "main thread", "thread queue", "a new thread"
  std::map<std::string, uint64_t> sites;  // and how many calls were made there

  // As it stands in a profile, with the reason made of what was seen.
  std::string text() const;
};

// The rule that allows `record` and what differs from it only in what is not pinned.
LearnedRule ruleFor(const Policy& policy, const CallRecord& record, const std::string& syscall,
                    const std::string& site);

// Joins rules that allow the same, puts each where it is needed last, drops those that others
// contain, and joins those of one place in the code that differ in one argument.
std::vector<LearnedRule> joined(std::vector<LearnedRule> rules);

}  // namespace troupe::sandbox
