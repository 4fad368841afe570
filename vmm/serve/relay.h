#pragma once

namespace troupe {

enum class Detachable { NO, YES };

// What is read from the other side is written as it is, or as {"base64":"…"}, a line for each
// piece.
enum class Written { AS_IT_IS, AS_JSON };

enum class RelayEnd {
  CLOSED,       // by the other side
  DETACHED,     // by the detach key
  OUTPUT_GONE,  // nobody reads standard output any more
};

// Carries bytes between this process's standard input and output and the stream `socket` until the
// other side ends it, or standard output cannot be written. The end of input is passed on. With
// Detachable::YES and a terminal the keys go through as they come, and the detach key leaves.
RelayEnd relay(int socket, Detachable detachable, Written written);

}  // namespace troupe
