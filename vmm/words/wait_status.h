#pragma once

#include <kj/string.h>

namespace troupe {

// A wait status in words: "exited with status 3", "was killed by signal 9 (Killed)".
kj::String describeWaitStatus(int status);

}  // namespace troupe
