#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sandbox/policy_layers.h"
#include "sandbox/source_location.h"

namespace troupe::sandbox {

class ProfileFiles;

// A profile with its includes merged and its names resolved: what the compiler's back ends and
// `troupe policy` read.

// A condition on one argument of a system call, as seccomp can test it.
struct Condition {
  enum Test { MASKED_EQUAL, AT_MOST };
  uint32_t argument;
  Test test;
  uint64_t mask;  // MASKED_EQUAL only
  uint64_t value;

  bool holds(uint64_t argumentValue) const {
    return test == AT_MOST ? argumentValue <= value : (argumentValue & mask) == value;
  }
  bool holds(const uint64_t (&arguments)[6]) const { return holds(arguments[argument]); }
};

// One way of making one system call: `conditions` all hold, at most one per argument.
struct Verdict {
  int syscall;
  std::vector<Condition> conditions;
  int error;  // 0: the call is made; otherwise it fails with this errno
};

// What a rule asks of one argument: one of the alternatives.
struct PolicyArgument {
  uint32_t index;
  std::string text;              // as written: "= MAP_SHARED or MAP_PRIVATE", "within PROT_READ"
  std::vector<std::string> fds;  // the names, when it is about fds
  std::vector<Condition> alternatives;
};

// One rule about one system call, as it holds in one filter.
struct PolicyRule {
  std::string stage;     // where it is written: "start", "ready", "run", "thread:NAME"
  SourceLocation where;  // the rule
  SourceLocation name;   // the call's name in it
  std::string syscallName;
  int syscall;
  std::vector<PolicyArgument> arguments;
  int error;
  std::string fail;  // the name of `error`
  std::string reason;
  std::vector<SourceLocation> narrowedBy;

  std::vector<Verdict> verdicts() const;
};

struct PolicyFilter {
  std::string stage;  // "start", "ready", "run", "thread:NAME"
  std::vector<Verdict> verdicts;
  std::vector<PolicyRule> rules;  // what the verdicts come from
};

struct PolicyFd {
  std::string name;
  uint32_t number;
  uint32_t count;
  std::string kind;
  bool handed;
  bool optional;
  bool closed;
  bool made;
  SourceLocation where;
};

struct PolicyLimit {
  int resource;
  uint64_t value;
  std::string name;  // without RLIMIT_
};

struct PolicyBudget {
  std::string filter;
  uint32_t syscalls;
  uint32_t unconditional;
  SourceLocation where;
};

struct Policy {
  std::string actor;
  std::string path;
  std::vector<PolicyFd> fds;
  std::vector<PolicyFilter> filters;  // "start" first; no "run" where it would equal "ready"
  std::vector<PolicyLimit> limits;
  std::vector<PolicyBudget> budgets;
  PolicyLayers layers;
};

// The filter in force in `stage`; none when the profile has no such stage.
const PolicyFilter* filterOf(const Policy& policy, const std::string& stage);

// The stages and threads a profile has a filter for, "run" included where it shares that of
// "ready".
std::vector<std::string> stagesOf(const Policy& policy);

// How many system calls a filter lets through, and how many of them with conditions in every rule.
struct Reach {
  std::vector<std::string> conditional;
  std::vector<std::string> unconditional;
  size_t total() const { return conditional.size() + unconditional.size(); }
};
Reach reachOf(const PolicyFilter& filter);

// A profile that may be wrong. Without errors the policy is complete.
struct PolicyReading {
  Policy policy;
  std::vector<ProfileError> errors;  // in the order of the files, then of the lines
};

// Reads the profile `path` and what it includes. Finds what is wrong, never throws ProfileError.
PolicyReading examinePolicy(const ProfileFiles& files, const std::string& path);

// The same, but throws the first ProfileError.
Policy readPolicy(const ProfileFiles& files, const std::string& path);
Policy readPolicy(const std::string& root, const std::string& path);

}  // namespace troupe::sandbox
