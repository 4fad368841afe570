#pragma once

#include <kj/string.h>

namespace troupe {

// Fills the empty folder of a bundle with a Debian kernel and a small root disk, by way of the
// scripts of guest/linux, which are part of this program; they say how far they are. Throws
// TRP-rlm-013.
void makeDebianGuest(kj::StringPtr folder);

}  // namespace troupe
