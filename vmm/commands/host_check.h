#pragma once

#include <kj/array.h>
#include <kj/string.h>

namespace troupe {

// One thing a host may offer, and what `troupe doctor` found.
struct HostFinding {
  enum class State {
    PRESENT,
    MISSING,  // troupe cannot work without it
    REDUCED,  // troupe works, with one layer or one gain less
  };

  kj::String name;
  State state;
  kj::String detail;
  kj::String see;   // the command that shows it
  kj::String mend;  // the command that mends it; empty when present
};

// Looks at the host by trying: each check does what troupe itself would do. Changes nothing.
kj::Array<HostFinding> checkHost();

}  // namespace troupe
