#pragma once

#include <kj/array.h>

#include "broker/ram_layout.h"
#include "protos/broker.capnp.h"
#include "sandbox/attest.h"
#include "sandbox/profile.h"

namespace troupe {

// What of the guest's memory a device's profile gives it, as the broker is asked for it.
void writeGrant(const sandbox::ProfileMemory& memory, MemoryGrant::Builder grant);

// The parts of the RAM file that an actor with this profile may have mapped, of a guest with this
// RAM. Throws TRP-cfg-104 when its profile names what is no RAM.
kj::Array<sandbox::FileRange> mappableRanges(const sandbox::ProfileMemory& memory,
                                             kj::ArrayPtr<const broker::RamRegion> ram);

}  // namespace troupe
