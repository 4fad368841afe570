#pragma once

#include <kj/string.h>
#include <sys/types.h>

namespace troupe {

// Whether a process does nothing, and goes on only when somebody from outside of it does something:
// each of its threads sleeps in a wait that has no timeout, and none ran while that was found out.
// False as well for one that is gone, or that the kernel tells nothing of.
bool isAtRest(pid_t pid);

// Whether what /proc/PID/syscall says is such a wait.
bool isEndlessWait(kj::StringPtr call);

}  // namespace troupe
