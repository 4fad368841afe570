#pragma once

#include <functional>

#include "sandbox/policy.h"
#include "sandbox/source_location.h"

namespace troupe::sandbox {

// Finds rules by which an actor could undo what its other layers promise: an actor that may not
// reach all of guest RAM maps no file and grows no mapping once it is `ready`, one without io_uring
// enters none, and one with it makes its rings in `start`, where they get their restrictions.
void guardLayers(const Policy& policy, const std::function<void(const ProfileError&)>& report);

}  // namespace troupe::sandbox
