#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// The seccomp program of one filter: anything that `filter` does not name kills the process, calls
// by another convention (i386, x32) included. Throws ProfileError when it is longer than the kernel
// takes.
//
// The program is compared with the filter, as evaluate() and decide() see them, on every call the
// filter speaks of and on its neighbours. Throws std::runtime_error when they differ.
std::vector<sock_filter> buildProgram(const PolicyFilter& filter);

// What the kernel would answer to a call, the SECCOMP_RET_… word, reading the rules one by one.
uint32_t decide(const PolicyFilter& filter, int syscall, const uint64_t (&arguments)[6]);

// The same by running the program.
uint32_t evaluate(const std::vector<sock_filter>& program, uint32_t architecture, int syscall,
                  const uint64_t (&arguments)[6]);

}  // namespace troupe::sandbox
