#pragma once

#include <kj/async-unix.h>

#include "devices/console/backend.h"
#include "devices/console/polled_fd.h"

namespace troupe::console {

// Carries the raw bytes of the 16550 between the broker's socket and a Line. What the broker sends
// is the guest's doing and only ever copied.
class UartRelay {
 public:
  // `socket` is borrowed and becomes non-blocking.
  UartRelay(kj::UnixEventPort& events, Line& line, int socket);

  // Runs the relay: resolves when the broker has closed its end and everything it sent is in the
  // line's output. Called once.
  kj::Promise<void> run();

 private:
  kj::Promise<void> pumpOutput();
  kj::Promise<void> pumpInput();

  Line& line;
  PolledFd socket;
};

}  // namespace troupe::console
