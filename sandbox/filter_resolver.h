#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {

// The filters that the rules of `sources` make, included files first, the profile itself last:
// "start" first; no "run" where it would equal "ready". `policy` has the profile's fds and limits.
// Tells `report` each mistake and goes on.
std::vector<PolicyFilter> resolveFilters(const ProfileFiles& files,
                                         const std::vector<std::unique_ptr<SourceFile>>& sources,
                                         const Policy& policy,
                                         const std::function<void(const ProfileError&)>& report);

}  // namespace troupe::sandbox
