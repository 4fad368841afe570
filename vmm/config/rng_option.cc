#include "vmm/config/rng_option.h"

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr RATE = "rate="_kj;
constexpr kj::StringPtr REQUESTS = "iops"_kj;

}  // namespace

RngPlan planRng(kj::StringPtr text) {
  if (text == "on") return {true, {}};
  if (text == "off") return {false, {}};
  if (!text.startsWith(RATE)) {
    UserError(codes::NOT_A_CHOICE,
              kj::str("--rng expects on, off or rate=RATE; it was given ", quote(text)))
        .raise();
  }
  RngPlan plan = {true, {}};
  auto rate = text.slice(RATE.size());
  KJ_IF_MAYBE (why, parseRate(rate, REQUESTS, plan.rate)) {
    UserError(codes::RNG_RATE, kj::str("--rng rate=", escape(rate), " is not possible: ", *why,
                                       "; ", rateRule(REQUESTS)))
        .raise();
  }
  return plan;
}

}  // namespace troupe
