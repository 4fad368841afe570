#pragma once

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/memory.h>

#include "sandbox/exit_report.h"
#include "sandbox/jail_plan.h"
#include "sandbox/launcher.h"

namespace troupe::sandbox {

// What a child between clone and exec uses of this process's memory.
struct LaunchMemory {
  virtual ~LaunchMemory() noexcept(false) = default;
  JailPlan plan = {};
};

// The parent's side of a child that was just cloned. `status`: reads end of file once the child has
// executed its program or ended. `report`: none with the jail off.
kj::Own<Child> watchChild(kj::UnixEventPort& events, kj::StringPtr name, pid_t pid,
                          kj::AutoCloseFd pidFd, kj::AutoCloseFd status,
                          kj::Own<LaunchMemory> memory, kj::Maybe<kj::Own<ExitReport>> report);

}  // namespace troupe::sandbox
