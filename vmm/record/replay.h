#pragma once

#include <kj/async-io.h>
#include <kj/string.h>

#include "vmm/record/recording_reader.h"

namespace troupe {

// What came of a replay.
struct ReplayResult {
  size_t events = 0;                 // of the recording that were gone through
  size_t chains = 0;                 // that were answered as they had been
  kj::Maybe<kj::String> unfollowed;  // why it ended before the recording did
  struct Difference {
    size_t event;  // of the recording; counted from 1
    kj::String what;
    kj::String how;
  };
  kj::Maybe<Difference> difference;  // the first
};

// Starts the device of `recording` from `executable`, in its jail and without a VM, has it see what
// it saw then, and compares what it does: for each chain by itself, since requests that the host
// answers later may end in any order. Stops at the first difference. Throws user errors.
ReplayResult replay(kj::AsyncIoContext& io, RecordingReader& recording, int executable);

}  // namespace troupe
