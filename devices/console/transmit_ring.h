#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include "devices/console/output_log.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::console {

// The requests of a transmitq (§5.3.6): what the driver puts there goes to an OutputLog. Knows no
// fd and no event loop.
class TransmitRing {
 public:
  // Both outlive it. `logged`: how many bytes of the chains that a process before this one left
  // behind are in the log already.
  TransmitRing(virtio::Virtqueue& ring, OutputLog& log, uint64_t logged = 0);

  // Takes a bounded amount. EMPTY: nothing is left. MORE: there may be. CONGESTED: the log wants to
  // be waited for. BROKEN: only a reset heals the ring.
  enum class Outcome { EMPTY, MORE, CONGESTED, BROKEN };
  Outcome serve();

 private:
  Outcome take();
  bool dropIfDeadly();
  bool copySome();

  virtio::Virtqueue& ring;
  OutputLog& log;
  kj::Array<kj::byte> copy;
  kj::Maybe<virtio::Chain> current;  // taken, and not yet copied to its end
  uint64_t copied = 0;               // of that
  uint64_t logged;                   // of what was left behind, and is not copied again
};

}  // namespace troupe::console
