#pragma once

namespace troupe::console {

// The actor `troupe-console`: virtio console. Returns the exit status; DETACH_STATUS (detach.h)
// does not pass through here, the process ends on the spot.
int consoleMain();

}  // namespace troupe::console
