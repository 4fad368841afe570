#pragma once

#include <kj/async-unix.h>
#include <kj/function.h>
#include <kj/vector.h>

namespace troupe {

// To be called before the loop is made, and before any process is started.
void captureSignals();

// Calls `stop` with "SIGTERM" or another name when this process is asked to end, for as long as it
// exists. Signals that were ignored at our start stay so: nohup means it.
class StopSignals {
 public:
  StopSignals(kj::UnixEventPort& events, kj::Function<void(kj::StringPtr)> stop);
  KJ_DISALLOW_COPY(StopSignals);

 private:
  kj::Function<void(kj::StringPtr)> stop;
  kj::Vector<kj::Promise<void>> watches;
};

}  // namespace troupe
