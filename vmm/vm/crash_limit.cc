#include "vmm/vm/crash_limit.h"

namespace troupe {

bool CrashLimit::crashed(kj::TimePoint now) {
  auto& oldest = earlier[count % (MOST - 1)];
  bool tooOften = count >= MOST - 1 && now - oldest < PERIOD;
  oldest = now;
  ++count;
  return tooOften;
}

}  // namespace troupe
