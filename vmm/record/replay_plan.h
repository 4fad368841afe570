#pragma once

#include <capnp/message.h>
#include <kj/memory.h>

#include "vmm/record/flight_index.h"

namespace troupe {

// What a device of one kind is replayed with: its configuration with everything of the host's left
// out, and what takes the place of that (ReplayPlan in replayer.capnp).
struct ReplayNeeds {
  kj::Own<capnp::MallocMessageBuilder> config;
  uint64_t diskBytes = 0;
  uint16_t outputs = 0;
  bool connector = false;
};

// Throws kj exceptions for a configuration that makes no sense. `events`: of the process that is to
// be replayed.
ReplayNeeds replayNeeds(Recording::Reader head, const EventList& events, const FlightIndex& index);

}  // namespace troupe
