#pragma once

#include "protos/control.capnp.h"

namespace troupe {

// A copy of what a stranger says of a VM's load, as far as it can be true and is safe to show.
void copyLoad(VmLoad::Reader from, VmLoad::Builder to);

}  // namespace troupe
