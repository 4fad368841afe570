#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {

// The part of readLayers() that is about what an actor may use: guest memory, rings, control group;
// and about what follows its end. `layers` has the minimum kernel.
void readResourceLayers(const std::vector<std::unique_ptr<SourceFile>>& sources,
                        const std::vector<PolicyFd>& fds,
                        const std::function<void(const ProfileError&)>& report,
                        PolicyLayers& layers);

}  // namespace troupe::sandbox
