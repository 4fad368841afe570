#pragma once

#include <kj/string.h>

namespace troupe::console {

// Tells the user of something that this process goes on in spite of. `text` starts with a code that
// docs/errors.md explains. Best effort: whoever reads the log may be gone.
void complain(kj::StringPtr text);

// An errno in words.
kj::String errnoText(int number);

}  // namespace troupe::console
