#pragma once

#include <kj/common.h>
#include <kj/time.h>

#include <cstdint>

namespace troupe {

// How long to wait before something that failed is begun again: longer with each failure that
// follows one before.
class Backoff {
 public:
  struct Rule {
    uint32_t atOnce;            // so many failures in a row are followed by no pause
    kj::Duration first;         // after the next one
    uint32_t mostDoublings;     // of it, one with each that follows
    kj::Duration inARowWithin;  // a failure this long after the one before is the first again
  };
  explicit Backoff(const Rule& rule) : rule(rule) {}

  // It failed. How long to wait.
  kj::Duration failed(kj::TimePoint now) {
    KJ_IF_MAYBE (before, last) {
      if (now - *before >= rule.inARowWithin) inARow = 0;
    }
    last = now;
    if (inARow < rule.atOnce + rule.mostDoublings + 1) ++inARow;
    if (inARow <= rule.atOnce) return 0 * kj::SECONDS;
    return rule.first * (1u << (inARow - rule.atOnce - 1));
  }

  // All is well: the next failure is the first.
  void forget() { inARow = 0; }

 private:
  const Rule rule;
  uint32_t inARow = 0;
  kj::Maybe<kj::TimePoint> last;
};

}  // namespace troupe
