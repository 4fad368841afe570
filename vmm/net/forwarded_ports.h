#pragma once

#include "vmm/config/net_plan.h"

namespace troupe {

// Looks whether passt can listen on the ports of `forwards`, as it will, before anything is
// started: what it says when it cannot would be its last words. Throws a user error that begins
// with `option` and names the first port that cannot be had.
void checkForwardedPorts(kj::StringPtr option, kj::ArrayPtr<const ForwardPlan> forwards);

}  // namespace troupe
