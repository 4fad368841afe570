#pragma once

#include <string>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {

// A `rule` or `narrow` and where it stands.
struct RuleSite {
  const SourceFile& file;
  const policy::Rule& rule;
  const google::protobuf::TextFormat::ParseInfoTree* tree;
  SourceLocation where;

  SourceLocation at(const std::string& field, int index = 0) const {
    return locate(file, tree, rule, field, index);
  }
};

// Whether no profile may allow this call once its actor serves.
bool neverWhileServing(const std::string& syscall);

// Resolves the names of one rule written in `stage`: one PolicyRule per system call. Throws
// ProfileError.
std::vector<PolicyRule> compileRule(const RuleSite& site, const std::string& stage,
                                    const std::vector<PolicyFd>& fds);

// The same for a `narrow`, which allows nothing and so may name every call.
std::vector<PolicyRule> compileNarrow(const RuleSite& site, const std::string& stage,
                                      const std::vector<PolicyFd>& fds);

// `rule` where the conditions of `by`, a narrow of the same call, hold too; its `arguments` have no
// alternative left where both can never hold. Throws ProfileError where seccomp could not test
// both.
PolicyRule narrowed(const PolicyRule& rule, const PolicyRule& by);

}  // namespace troupe::sandbox
