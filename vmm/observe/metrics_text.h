#pragma once

#include <kj/string.h>

#include "protos/control.capnp.h"

namespace troupe {

// What a VM uses and does, in Prometheus' text format 0.0.4. `load` comes from `troupe`; names in
// it are written as label values, whatever they are.
kj::String metricsText(VmLoad::Reader load);

}  // namespace troupe
