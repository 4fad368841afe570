#pragma once

#include <kj/string.h>

#include "vmm/record/recording_reader.h"

namespace troupe {

// An event for people, in one line, escaped: "chain 12 of queue 0 is answered with 4097 bytes".
kj::String eventWords(FlightEvent::Reader event);

// How `now` differs from `then`, which are events of the same kind about the same thing; none when
// it does not. Times do not count.
kj::Maybe<kj::String> differenceOf(FlightEvent::Reader then, FlightEvent::Reader now);

}  // namespace troupe
