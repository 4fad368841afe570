#pragma once

#include <kj/async-io.h>
#include <kj/io.h>

namespace troupe::fuzz {

// Two ends of a channel between parts of one process, which carries bytes and fds without a system
// call for a byte. In the place of kj::newCapabilityPipe(), which in KJ 0.9 falls over when what
// was written without fds is read with room for some.
struct FdPipe {
  kj::Own<kj::AsyncCapabilityStream> ends[2];
};
FdPipe newFdPipe();

}  // namespace troupe::fuzz
