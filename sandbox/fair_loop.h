#pragma once

#include <kj/async-io.h>

namespace troupe::sandbox {

// The event loop of a process whose peers may be anybody's. KJ's own goes on as long as something
// is ready, without a look at any other fd or at the time: a jailed process that writes lines or
// messages faster than they are read would have whoever reads them to itself. This one looks again
// and again, whatever comes.
inline kj::AsyncIoContext setupFairIo() {
  constexpr kj::uint EVENTS_IN_A_ROW =
      64;  // a fraction of a millisecond; a look takes one or two µs
  auto io = kj::setupAsyncIo();
  io.waitScope.setBusyPollInterval(EVENTS_IN_A_ROW);
  return io;
}

}  // namespace troupe::sandbox
