#pragma once

#include <kj/io.h>
#include <kj/string.h>

namespace troupe::realm {

// What a guest of a realm says and hears.
enum class GuestLine { SERIAL, CONSOLE };

// A connection to it, a blocking stream socket; the first bytes read are what it said last. `vm`: a
// living VM. Throws TRP-rlm-036 when that has no such line in the run-time folder.
kj::AutoCloseFd connectToLine(kj::StringPtr vm, GuestLine line);

}  // namespace troupe::realm
