#pragma once

#include <kj/async-io.h>

namespace troupe::front {

// Serves the realms behind `troupe` to the client behind `client` until one of the two leaves, or
// the client has gone too far.
kj::Promise<void> serveRealms(kj::Own<kj::AsyncCapabilityStream> client,
                              kj::Own<kj::AsyncCapabilityStream> troupe);

// The same of two unix sockets, which are borrowed.
kj::Promise<void> serveRealms(kj::AsyncIoContext& io, int client, int troupe);

}  // namespace troupe::front
