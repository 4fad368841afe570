#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe {

// How much a guest may use of something. 0 a second is without limit.
struct RatePlan {
  uint64_t bytesPerSecond = 0;
  uint64_t burstBytes = 0;
  uint64_t itemsPerSecond = 0;  // requests, frames, …
  uint64_t burstItems = 0;
};

// "100M", "500iops", "100M/1G+500iops/1000": what a second allows, and behind the slash what may
// pass at once after a rest (a second's worth unless said). `unit`: what stands behind a number of
// items, "iops". Returns why the text is no such rate, if it is none.
kj::Maybe<kj::String> parseRate(kj::StringPtr text, kj::StringPtr unit, RatePlan& plan);

// "a rate is 100M, 500iops or 100M+500iops, at most 1T a second, …", for errors.
kj::String rateRule(kj::StringPtr unit);

}  // namespace troupe
