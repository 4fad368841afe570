#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace troupe::sandbox {

// clone() of a child that runs `function(argument)`, which does not return, on the stack given and
// in the control group whose folder `cgroup` is open on. Unlike a move after the fact, this does
// not wait for all processors of the machine, and there is no moment in which the child is
// elsewhere. `flags`: as clone()'s, without a signal; the parent gets SIGCHLD. -1 and errno when it
// fails.
pid_t cloneInto(int cgroup, int (*function)(void*), void* argument, void* stack, size_t stackSize,
                uint64_t flags, int* pidFd);

}  // namespace troupe::sandbox
