#pragma once

#include <kj/string.h>

#include "vmm/config/rate_plan.h"

namespace troupe {

// The random number generator of a VM.
struct RngPlan {
  bool on;
  RatePlan rate;
};

// "on", "off", or "rate=1M", which is on. Throws a user error for anything else.
RngPlan planRng(kj::StringPtr text);

}  // namespace troupe
