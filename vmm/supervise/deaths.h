#pragma once

#include <kj/time.h>
#include <kj/vector.h>

#include "sandbox/profile.h"
#include "vmm/supervise/backoff.h"

namespace troupe {

// What a death breaks may be seen before the death.
constexpr kj::Duration DEATH_WAIT = 500 * kj::MILLISECONDS;

// How an actor that is replaced has died so far, and what follows from it: whether another process
// takes its place, and when.
class Deaths {
 public:
  enum class Fault { OWN, NOBODYS };

  // Whether its profile lets one that dies now be replaced.
  bool isOneMoreAllowed(kj::TimePoint now, const sandbox::ProfileRestart& policy);

  // Notes one; false, and it is not noted, when its profile lets it not be replaced.
  bool note(kj::TimePoint now, const sandbox::ProfileRestart& policy, Fault fault);

  // Between the last one and its successor's start.
  kj::Duration pause() const { return untilNext; }

  // Whether that was one of its own, and the third within ten seconds at least.
  bool isThirdOwn() const { return isTooMany; }

 private:
  kj::Vector<kj::TimePoint> all;  // within the time its profile speaks of
  kj::Vector<kj::TimePoint> own;  // within ten seconds
  Backoff backoff{{1, 10 * kj::MILLISECONDS, 7, 10 * kj::SECONDS}};
  kj::Duration untilNext = 0 * kj::SECONDS;
  bool isTooMany = false;
};

}  // namespace troupe
