#pragma once

#include <kj/async-io.h>
#include <kj/string.h>

#include "vmm/record/answer_table.h"
#include "vmm/record/flight_index.h"
#include "vmm/record/recording_reader.h"
#include "vmm/record/replayed_device.h"

namespace troupe {

// What came of a replay.
struct ReplayResult {
  size_t events = 0;                 // of the recording that were gone through
  size_t chains = 0;                 // that were answered as they had been
  kj::Maybe<kj::String> unfollowed;  // why it ended before the recording did
  struct Difference {
    size_t event;  // of the recording; counted from 1
    kj::String what;
    kj::Maybe<kj::String> how;  // none: the device did not do it
  };
  kj::Maybe<Difference> difference;  // the first
};

// Has `device` see what the process of `events` and `index` saw, and compares what it does: for
// each chain by itself, since requests that the host answers later may end in any order. Stops at
// the first difference. Throws kj exceptions for events that make no sense.
ReplayResult replay(const EventList& events, const FlightIndex& index, ReplayedDevice& device);

}  // namespace troupe
