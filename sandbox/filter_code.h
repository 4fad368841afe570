#pragma once

#include <linux/filter.h>

#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// The instructions for `verdicts`: a binary search for the call's number, then its verdicts in
// their order until one holds, which answers. Whatever none holds for dies, as do calls by another
// convention than x86_64's. Verdicts next to each other share the tests they begin with.
//
// libseccomp is not asked: it takes a call that fails without condition for all there is to say of
// this call, and mixes up several greatest values of one argument.
std::vector<sock_filter> writeFilterCode(const std::vector<Verdict>& verdicts);

}  // namespace troupe::sandbox
