#pragma once

#include <kj/function.h>

#include "protos/config.capnp.h"
#include "sandbox/watch/call_watch.h"
#include "vmm/company/vm_start.h"
#include "vmm/control/vm_model.h"

namespace troupe {

// Runs one VM from this process to its end, in a realm of its own, with the user's terminal and
// signals behind it. Throws a user error for a configuration that cannot be; a guest that never
// came to run ends with what `troupe` is to exit with. `begun` is called when it has. `watch`: what
// to write down of its actors' system calls, for `troupe policy`; no configuration can ask for it.
VmEnd hostVm(
    VmConfig::Reader config, Begin begin = Begin::RUNNING,
    kj::Function<void(RunningVm&)> begun = [](RunningVm&) {},
    kj::Maybe<const sandbox::WatchRequest&> watch = nullptr);

}  // namespace troupe
