#pragma once

namespace troupe::console {

// The actor `troupe-serial`: the host's side of the 16550, whose registers the broker keeps. Does
// not return: it exits with 0 when the broker has closed its end of "uart" and all output is
// delivered, or with DETACH_STATUS (detach.h).
int serialMain();

}  // namespace troupe::console
