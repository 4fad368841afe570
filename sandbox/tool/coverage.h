#pragma once

#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// Whether every call that `call` describes is also described by one of `by`, whatever the errors of
// either. Exact for conditions on bits; where a size and bits of one argument overlap in part, and
// for overlaps of very many parts, the answer may be a false no.
bool covered(const Verdict& call, const std::vector<Verdict>& by);

}  // namespace troupe::sandbox
