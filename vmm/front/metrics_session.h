#pragma once

#include <kj/async-io.h>
#include <kj/timer.h>

#include "protos/control.capnp.h"

namespace troupe::front {

// Answers one HTTP request at the other end of `stream` with the VM's metrics, or says why not, and
// resolves when the connection is over. No more than MOST_REQUEST_BYTES are read, and all of it
// takes METRICS_PATIENCE at most. Of the request only its first line is looked at.
constexpr size_t MOST_REQUEST_BYTES = 8192;
constexpr kj::Duration METRICS_PATIENCE = 10 * kj::SECONDS;
kj::Promise<void> serveMetrics(kj::Own<kj::AsyncIoStream> stream, Vm::Client vm, kj::Timer& timer);

}  // namespace troupe::front
