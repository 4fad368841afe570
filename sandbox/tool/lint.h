#pragma once

#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// What is sound but looks like a mistake in the file `policy.path` itself, not in what it includes:
// rules that others make idle, fds no rule speaks of, filters without a budget.
std::vector<ProfileError> lint(const Policy& policy);

// The rules of that file that others make idle.
std::vector<const PolicyRule*> idleRules(const Policy& policy);

}  // namespace troupe::sandbox
