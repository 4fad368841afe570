#pragma once

#include <string>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// What `after` allows that `before` does not, and the reverse: fds, limits, and for each stage the
// calls that one lets through and the other does not. Fds are compared by name, so an fd that only
// moves to another number changes nothing but its own line. "" when there is no difference.
std::string diffPolicies(const Policy& before, const Policy& after);

}  // namespace troupe::sandbox
