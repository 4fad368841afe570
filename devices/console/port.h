#pragma once

#include <kj/async-unix.h>

#include "devices/console/backend.h"
#include "devices/console/port_control.h"
#include "devices/console/receive_queue.h"
#include "devices/console/transmit_queue.h"

namespace troupe::console {

// One port of a console, as its process has it for good.
struct Port {
  Line& line;
  PortKind kind;
  kj::String name;   // "" has none
  uint16_t columns;  // 0 where the size is not known
  uint16_t rows;
  bool followsTerminal;  // its size is that of the user's terminal, which may change
  kj::Maybe<Backend&> backend = nullptr;
};

// The two data queues of a port in one life of a driver, as far as it has enabled them.
struct PortQueues {
  kj::Maybe<TransmitQueue> transmit;
  kj::Maybe<ReceiveQueue> receive;
  kj::Promise<void> transmitting = nullptr;
  kj::Promise<void> receiving = nullptr;
};

}  // namespace troupe::console
