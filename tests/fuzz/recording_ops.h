#pragma once

#include <kj/string.h>

#include <vector>

#include "tests/fuzz/op.h"
#include "vmm/record/recording_reader.h"

namespace troupe::fuzz {

// The operations that ask a fuzz target of `kind` ("blk", "net") for what a recorded
// device was asked for: as many of them as an input may have in each, none twice. Sizes and places
// are brought down to the target's own. Empty for a kind without them. Throws kj exceptions for
// events that make no sense.
std::vector<std::vector<Op>> opsOf(kj::StringPtr kind, const EventList& events);

}  // namespace troupe::fuzz
