#pragma once

#include <kj/array.h>

#include "vmm/record/flight_index.h"

namespace troupe {

// What the host answered in `events`, as a device that is replayed looks it up
// (virtio::AnswerTable). Throws kj exceptions for events that make no sense, or that would need
// more than `mostBytes`.
kj::Array<kj::byte> makeAnswerTable(const EventList& events, const FlightIndex& index,
                                    uint64_t mostBytes);

}  // namespace troupe
