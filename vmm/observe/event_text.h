#pragma once

#include <kj/string.h>

#include "protos/control.capnp.h"

namespace troupe {

// An event as a line of JSON, without the line's end. Words in it are made safe to show.
kj::String eventLine(VmEvent::Reader event);

// The line that tells of events a reader was too late for.
kj::String lostLine(uint64_t count);

}  // namespace troupe
