#pragma once

#include <kj/function.h>

#include "protos/config.capnp.h"
#include "vmm/vm_model.h"

namespace troupe {

// Runs one VM from this process to its end, with the user's terminal and signals behind it. Throws
// a user error when the guest never came to run. `begun` is called when it has. `watch`: see
// vm_model.h.
VmEnd hostVm(
    VmConfig::Reader config, kj::Function<void(RunningVm&)> begun = [](RunningVm&) {},
    kj::Maybe<const sandbox::WatchRequest&> watch = nullptr);

}  // namespace troupe
