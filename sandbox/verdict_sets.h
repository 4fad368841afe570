#pragma once

#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// What the rules of one filter say: sorted, without repetitions and without what an unconditional
// verdict on the same call makes idle. Throws ProfileError when it is more than a filter holds.
std::vector<Verdict> verdictsOf(const std::vector<PolicyRule>& rules);

bool same(const std::vector<Verdict>& a, const std::vector<Verdict>& b);

// Throws ProfileError, at the rule, when `later` lets a call through that `earlier` refuses: stages
// only narrow. A rule of a stage holds in those before it, so no text of a profile gets here.
void requireNested(const PolicyFilter& earlier, const PolicyFilter& later);

}  // namespace troupe::sandbox
