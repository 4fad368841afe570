#pragma once

#include <kj/array.h>
#include <sys/types.h>

#include "protos/control.capnp.h"
#include "sandbox/limits/cgroup.h"
#include "vmm/observe/counters_view.h"

namespace troupe {

// What a process uses, as the kernel tells anybody who looks: fills in pid, cpuNs, privateBytes and
// sharedBytes, and leaves at 0 what of a process that is gone cannot be told.
void describeUse(pid_t pid, ProcessLoad::Builder load);

// Its threads that are vCPUs ("vp-N"), by number, at most MOST_VCPUS. The process names its
// threads.
constexpr kj::uint MOST_VCPUS = 255;
void describeVcpus(pid_t pid, ProcessLoad::Builder load);

// Which limits of its group are in force and what is used of each. `load` has its cpuNs.
void describeLimits(const sandbox::ActorCgroup& group, ProcessLoad::Builder load);

void describeQueues(kj::ArrayPtr<const QueueCounts> queues, ProcessLoad::Builder load);

}  // namespace troupe
