#pragma once

#include <capnp/membrane.h>
#include <kj/refcount.h>

#include "protos/realm.capnp.h"

namespace troupe::front {

// Between an outside client and the realms behind it: calls pass in both directions that the
// interfaces of protos/realm.capnp have, of the objects that they can be made on, and no others.
// What a client hands in may be called by `troupe` in the same way, and is bounded there.
kj::Own<capnp::MembranePolicy> makeRealmMembrane();

}  // namespace troupe::front
