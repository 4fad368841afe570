#pragma once

namespace troupe {

enum class Detachable { NO, YES };

// Carries bytes between this process's standard input and output and the stream `socket` until the
// other side ends it, or standard output cannot be written. The end of input is passed on. With
// Detachable::YES and a terminal the keys go through as they come, and the detach key leaves.
// Whether it was that key.
bool relay(int socket, Detachable detachable);

}  // namespace troupe
