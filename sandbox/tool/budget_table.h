#pragma once

#include <string>
#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// For each filter of each policy: how many system calls it lets through, with and without
// conditions on their arguments, beside its budget.
std::string budgetTable(const std::vector<Policy>& policies);
std::string budgetJson(const std::vector<Policy>& policies);

}  // namespace troupe::sandbox
