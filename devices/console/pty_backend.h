#pragma once

#include <kj/async-unix.h>

#include "devices/console/backend.h"
#include "devices/console/polled_fd.h"

namespace troupe::console {

// The master of a pseudo-terminal. Whoever opens its other side reads from the oldest output kept
// on; nobody need have it open, and it may be closed and opened again.
//
// The terminal must have been made raw by whoever opened it: with the echo a fresh one has, the
// guest would read its own output.
class PtyBackend final: public Backend {
 public:
  // `master` is borrowed and becomes non-blocking.
  PtyBackend(kj::UnixEventPort& events, Line& line, int master);

  kj::Promise<void> rest() override;

 private:
  kj::Promise<void> begin();
  kj::Promise<void> pumpOutput();
  kj::Promise<void> pumpInput();

  Line& line;
  PolledFd master;
  kj::Maybe<OutputLog::Reader> reader;  // from when the line is this process's
  kj::Promise<void> output;
  kj::Promise<void> input;
};

}  // namespace troupe::console
