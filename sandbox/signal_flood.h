#pragma once

#include <chrono>
#include <cstdint>

namespace troupe::sandbox {

// Whether an actor is sent signals only to keep its launcher busy, which sees each of them.
class SignalFlood {
 public:
  using Clock = std::chrono::steady_clock;

  // Within a PERIOD. A guest with 255 vCPUs that keeps resetting itself causes 2550.
  static constexpr uint32_t MOST = 4000;
  static constexpr std::chrono::seconds PERIOD{1};

  // One more, `now`; true when it is one too many.
  bool isTooMany(Clock::time_point now) {
    if (now - since >= PERIOD) {
      since = now;
      count = 0;
    }
    return ++count > MOST;
  }

 private:
  uint32_t count = 0;  // within the period that began at:
  Clock::time_point since;
};

}  // namespace troupe::sandbox
