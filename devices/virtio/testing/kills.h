#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>

namespace troupe::virtio::testing {

// How often a test kills the process of its device: TROUPE_TEST_KILLS times, if that is set. Else a
// thousand times, or as often as fits a minute, but a hundred times at least.
class Kills {
 public:
  // Whether there is to be one more, which counts.
  bool takeOne() {
    bool isEnough = wanted > 0 ? done >= uint64_t(wanted)
                               : done >= MOST || (done >= LEAST && Clock::now() >= until);
    if (!isEnough) ++done;
    return !isEnough;
  }

  uint64_t count() const { return done; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr uint64_t LEAST = 100, MOST = 1000;

  static long asked() {
    const char* said = getenv("TROUPE_TEST_KILLS");
    return said == nullptr ? 0 : atol(said);
  }

  const long wanted = asked();
  const Clock::time_point until = Clock::now() + std::chrono::seconds(55);
  uint64_t done = 0;
};

}  // namespace troupe::virtio::testing
