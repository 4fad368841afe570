#include "vmm/supervise/deaths.h"

namespace troupe {

namespace {

constexpr size_t MOST_OWN = 3;
constexpr kj::Duration OWN_WITHIN = 10 * kj::SECONDS;

void forgetUpTo(kj::Vector<kj::TimePoint>& times, kj::TimePoint last) {
  kj::Vector<kj::TimePoint> recent;
  for (auto time : times) {
    if (time > last) recent.add(time);
  }
  times = kj::mv(recent);
}

}  // namespace

bool Deaths::isOneMoreAllowed(kj::TimePoint now, const sandbox::ProfileRestart& policy) {
  if (!policy.always) return false;
  if (policy.restarts == 0) return true;
  forgetUpTo(all, now - policy.seconds * kj::SECONDS);
  return all.size() < policy.restarts;
}

bool Deaths::note(kj::TimePoint now, const sandbox::ProfileRestart& policy, Fault fault) {
  if (!isOneMoreAllowed(now, policy)) return false;
  if (policy.restarts > 0) all.add(now);
  forgetUpTo(own, now - OWN_WITHIN);
  isTooMany = false;
  untilNext = 0 * kj::SECONDS;
  if (fault == Fault::NOBODYS) {
    backoff.forget();
    return true;
  }
  own.add(now);
  untilNext = backoff.failed(now);
  isTooMany = own.size() >= MOST_OWN;
  return true;
}

}  // namespace troupe
