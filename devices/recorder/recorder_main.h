#pragma once

namespace troupe::recorder {

// The actor `recorder`: carries what one device records (devices/virtio/flight_log.h) from memory
// to a file, and gives the memory back, until the other end of the fd "control" is closed. It knows
// nothing of what is in a recording. Returns the exit status.
int recorderMain();

}  // namespace troupe::recorder
