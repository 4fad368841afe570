#pragma once

#include <kj/async.h>
#include <kj/io.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "vmm/config/host_memory_words.h"

namespace troupe {

// A region of a guest's that is the host's memory: what the broker maps.
struct HostMemoryFile {
  // Also holds the guest's right to it: until all copies are closed nobody else has these bytes,
  // unless both share them.
  kj::AutoCloseFd fd;
  uint64_t guestAddress;
  uint64_t size;
  uint64_t offset;       // in the file
  uint64_t shownOffset;  // in the file, as /proc/PID/maps has it of a mapping
};

// Fills in the size that was left to the file. Throws TRP-cfg-018 or -019 for a file that cannot be
// opened or is of no kind that can be mapped, TRP-rlm-061 for one that is no memory as `words` say:
// shorter, in larger pages, a device that is none, or one whose mapping is not its own memory.
void measureHostMemory(HostMemoryWords& words);

// One more that guests are permitted to have, `text` as --permit-host-memory says it. Throws what
// parseHostMemory() and measureHostMemory() do, and TRP-rlm-060 for one more than MOST_PERMITTED,
// and for addresses that another one has.
constexpr size_t MOST_PERMITTED = 64;
void addPermitted(kj::Vector<HostMemoryWords>& permitted, kj::StringPtr text);

// The same as measureHostMemory(). It is nobody's yet: lockHostMemory() takes it.
HostMemoryFile openHostMemory(const HostMemoryWords& words);

// Takes `file`, opened for `words`, for one guest; both outlive the promise. Throws TRP-rlm-063
// when another has had it for as long as `patience`.
constexpr kj::Duration LOCK_PATIENCE = 300 * kj::MILLISECONDS;  // for a guest that is just leaving
kj::Promise<void> lockHostMemory(kj::Timer& timer, const HostMemoryWords& words,
                                 const HostMemoryFile& file, kj::Duration patience = LOCK_PATIENCE);

}  // namespace troupe
