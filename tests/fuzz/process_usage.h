#pragma once

#include <sys/types.h>

#include <cstdint>

namespace troupe::fuzz {

// What a process holds, as /proc says.
struct Usage {
  uint64_t fds;
  uint64_t threads;
  uint64_t privateKib;  // its own memory, without what it shares with a guest
};
Usage usageOf(pid_t pid);

}  // namespace troupe::fuzz
