#pragma once

#include "protos/config.capnp.h"
#include "vmm/vm_model.h"

namespace troupe {

// Runs one VM from this process to its end, with the user's terminal and signals behind it. Throws
// a user error when the guest never came to run.
VmEnd hostVm(VmConfig::Reader config);

}  // namespace troupe
