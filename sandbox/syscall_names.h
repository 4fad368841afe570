#pragma once

#include <cstdint>

namespace troupe::sandbox {

// x86_64's system calls by name and by number, as libseccomp knew them at build time.

// The name as in the manual's section 2; null when there is no such call.
const char* syscallName(uint64_t number);

// -1 when there is no such call.
int syscallNumber(const char* name);

}  // namespace troupe::sandbox
