#pragma once

#include <string>
#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// What an actor may do under `after` and may not under `before`, a fragment for each:
// "run: fcntl, fd = disk (devices/blk/blk.profile:14)". None: it is as tight, or tighter. Both have
// the same fds. Where an actor's restarts are counted is no question of tightness. As `covered()`
// has it, a rule that only looks wider may be named.
std::vector<std::string> looserParts(const Policy& before, const Policy& after);

}  // namespace troupe::sandbox
