#pragma once

#include <string>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// The effective policy for people: fds, limits, and each stage's system calls with their
// conditions, reasons and sources. Of `ready` and `start`, what they allow beyond the stage after.
std::string showPolicy(const Policy& policy);

// The same as one JSON object, with every stage complete.
std::string showPolicyJson(const Policy& policy);

}  // namespace troupe::sandbox
