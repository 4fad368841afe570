#pragma once

#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>

#include "sandbox/kernel_layers.h"

namespace troupe::sandbox {

// A ruleset that denies what `plan` says, of all files but executing `executable`; none when it
// denies nothing. `abi` is the kernel's. Throws TRP-jail-009 when the kernel makes no rules.
kj::Maybe<kj::AutoCloseFd> makeLandlockRules(const LayerPlan& plan, int abi, kj::StringPtr name,
                                             int executable);

}  // namespace troupe::sandbox
