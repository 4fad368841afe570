#pragma once

#include <kj/time.h>

#include <cstdint>

namespace troupe {

// Tells a guest that crashes now and then from one that does nothing else: at most MOST - 1 crashes
// within any PERIOD are followed by another start.
class CrashLimit {
 public:
  static constexpr uint32_t MOST = 5;
  static constexpr kj::Duration PERIOD = 60 * kj::SECONDS;

  // A guest has crashed. True when that was once too often.
  bool crashed(kj::TimePoint now);

 private:
  kj::TimePoint earlier[MOST - 1] = {kj::origin<kj::TimePoint>(), kj::origin<kj::TimePoint>(),
                                     kj::origin<kj::TimePoint>(), kj::origin<kj::TimePoint>()};
  uint32_t count = 0;
};

}  // namespace troupe
