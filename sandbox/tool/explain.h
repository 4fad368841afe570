#pragma once

#include <string>
#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// An argument of the call in question.
struct GivenArgument {
  bool known;  // otherwise it may be anything
  uint64_t value;
  std::string text;  // as it was given
};

// A rule about the call, and whether the call meets it.
struct RuleMatch {
  enum Meets { YES, NO, PERHAPS };
  const PolicyRule* rule;
  Meets meets;
  std::vector<uint32_t> failing;  // the arguments whose condition the call does not meet
};

struct Explanation {
  enum Answer { ALLOWED, FAILS, KILLED, DEPENDS };
  Answer answer;
  int error;  // of FAILS
  std::vector<RuleMatch> matches;
};

// What the filter answers to a call, from its rules as they are written. `arguments` may be fewer
// than six; the rest may be anything.
Explanation explainCall(const PolicyFilter& filter, int syscall,
                        const std::vector<GivenArgument>& arguments);

// The value of an argument as people write it: a number (negative too), constants of the profile
// language joined by '|', an fd by its name ("disk", "kick[3]"), or "_" for anything. Throws
// std::invalid_argument.
GivenArgument parseArgument(const Policy& policy, const std::string& text);

// The number of a system call, given by name or number. Throws std::invalid_argument.
int parseSyscall(const std::string& text, std::string& name);

// The answer for people, in `stage`.
std::string explainText(const Policy& policy, const std::string& stage, const std::string& name,
                        int syscall, const std::vector<GivenArgument>& arguments);

}  // namespace troupe::sandbox
