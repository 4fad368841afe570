#include "vmm/config/rate_plan.h"

#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

constexpr uint64_t MOST_PER_SECOND = 1ull << 40;
constexpr uint64_t MOST_BURST_SECONDS = 3600;

// "500iops/1000".
kj::Maybe<kj::String> parseLimit(kj::StringPtr text, kj::StringPtr unit, RatePlan& plan) {
  auto rate = kj::heapString(text);
  kj::Maybe<kj::String> burst;
  KJ_IF_MAYBE (slash, text.findFirst('/')) {
    burst = kj::heapString(text.slice(*slash + 1));
    rate = kj::heapString(text.begin(), *slash);
  }
  bool ofItems = rate.endsWith(unit);
  if (ofItems) rate = kj::heapString(rate.begin(), rate.size() - unit.size());
  auto parse = [&](kj::StringPtr number) -> uint64_t {
    return (ofItems ? parseNumber(number, UINT64_MAX) : parseSize(number)).orDefault(0);
  };
  auto wrong = [&](kj::StringPtr number) {
    return kj::str(quote(number), " is not a ", ofItems ? "number" : "size");
  };
  uint64_t perSecond = parse(rate), atOnce = perSecond;
  if (perSecond == 0) return wrong(rate);
  KJ_IF_MAYBE (said, burst) {
    atOnce = parse(*said);
    if (atOnce == 0) return wrong(*said);
  }
  if (perSecond > MOST_PER_SECOND) return kj::str("that is too much");
  if (atOnce > perSecond * MOST_BURST_SECONDS)
    return kj::str("the burst is more than an hour's worth");
  uint64_t& target = ofItems ? plan.itemsPerSecond : plan.bytesPerSecond;
  if (target != 0) return kj::str(ofItems ? unit : "bytes"_kj, " are given twice");
  target = perSecond;
  (ofItems ? plan.burstItems : plan.burstBytes) = atOnce;
  return nullptr;
}

}  // namespace

kj::Maybe<kj::String> parseRate(kj::StringPtr text, kj::StringPtr unit, RatePlan& plan) {
  kj::StringPtr rest = text;
  for (;;) {
    KJ_IF_MAYBE (plus, rest.findFirst('+')) {
      KJ_IF_MAYBE (why, parseLimit(kj::heapString(rest.begin(), *plus), unit, plan)) {
        return kj::mv(*why);
      }
      rest = rest.slice(*plus + 1);
    } else {
      return parseLimit(rest, unit, plan);
    }
  }
}

kj::String rateRule(kj::StringPtr unit) {
  return kj::str("a rate is 100M, 500", unit, " or 100M+500", unit,
                 ", at most 1T a second, each with a burst if wanted: 100M/1G");
}

}  // namespace troupe
