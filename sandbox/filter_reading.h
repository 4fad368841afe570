#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <linux/filter.h>
#include <sys/types.h>

namespace troupe::sandbox {

// The filters of one thread as the kernel holds them, instruction by instruction, the oldest first.
struct ThreadFilters {
  pid_t thread;
  kj::Array<kj::Array<sock_filter>> programs;
};

// What was read of a process's filters.
struct FilterReading {
  kj::Array<ThreadFilters> threads;
  kj::String refusal;  // why they cannot be read; empty when they were
};

// Why this process may read nobody's filters; empty when nothing is known against it. The kernel
// wants CAP_SYS_ADMIN over the host, and no filter on the reader itself.
kj::String whyNoFilterReading();

// Reads the filters of `thread`, a tracee of the calling thread that has stopped, into `threads`;
// `refusal` is set when the kernel does not let us.
void readFiltersOf(pid_t thread, kj::Vector<ThreadFilters>& threads, kj::String& refusal);

}  // namespace troupe::sandbox
