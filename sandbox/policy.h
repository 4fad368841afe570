#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::sandbox {

// A profile with its includes merged and its names resolved: what the compiler's back ends read.

// A condition on one argument of a system call, as seccomp can test it.
struct Condition {
  enum Test { MASKED_EQUAL, AT_MOST };
  uint32_t argument;
  Test test;
  uint64_t mask;  // MASKED_EQUAL only
  uint64_t value;

  bool holds(const uint64_t (&arguments)[6]) const {
    uint64_t argumentValue = arguments[argument];
    return test == AT_MOST ? argumentValue <= value : (argumentValue & mask) == value;
  }
};

// One way of making one system call: `conditions` all hold, at most one per argument.
struct Verdict {
  int syscall;
  std::vector<Condition> conditions;
  int error;  // 0: the call is made; otherwise it fails with this errno
};

struct PolicyFilter {
  std::string stage;  // "start", "ready", "run", "thread:NAME"
  std::vector<Verdict> verdicts;
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
};

struct PolicyLimit {
  int resource;
  uint64_t value;
};

struct Policy {
  std::string actor;
  std::vector<PolicyFd> fds;
  std::vector<PolicyFilter> filters;  // "start" first
  std::vector<PolicyLimit> limits;
};

// Reads the profile `path` and what it includes, both named from `root`. Throws ProfileError
// (profile_source.h).
Policy readPolicy(const std::string& root, const std::string& path);

}  // namespace troupe::sandbox
