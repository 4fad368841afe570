#pragma once

#include <sys/types.h>

#include <cstdint>

namespace troupe::sandbox {

// What an actor used of what its resource limits count, looked at as it ended.
struct LastUse {
  uint64_t openFiles = 0;     // 0 as well where nobody could look
  uint64_t addressSpace = 0;  // bytes, at most so far
  uint64_t cpuMs = 0;         // of all its threads
};

// Open files and address space of a process that still has them.
LastUse lookAtUse(pid_t pid);

}  // namespace troupe::sandbox
