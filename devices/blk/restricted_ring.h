#pragma once

#include <liburing.h>

#include <cstdint>

#include "devices/blk/ring_rules.h"

namespace troupe::blk {

// An io_uring that knows `files`, by their index there, and does nothing but what `rules` allow; of
// these only reads and syncs unless `writable`. The kernel holds it to that, and registers nothing
// more with it.
//
// Its fd is closed: the thread that made it reaches it through the ring fds registered for that
// thread, so of all system calls only io_uring_enter is left to it, and to no other thread.
// `eventFd` is written when there are completions.
io_uring makeRestrictedRing(kj::ArrayPtr<const int> files, bool writable, uint32_t capacity,
                            int eventFd, const RingRules& rules);

}  // namespace troupe::blk
