#pragma once

#include <linux/seccomp.h>

#include "sandbox/profile.h"

namespace troupe::sandbox {

// What the kernel would be told by `filter` about `call`: a SECCOMP_RET_… value. A program with an
// instruction that the profile compiler never writes kills.
uint32_t answerOf(const ProfileFilter& filter, const seccomp_data& call);

// Whether that answer is death.
inline bool kills(const ProfileFilter& filter, const seccomp_data& call) {
  uint32_t action = answerOf(filter, call) & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_KILL_PROCESS || action == SECCOMP_RET_KILL_THREAD;
}

}  // namespace troupe::sandbox
