#include "vmm/config/balloon_option.h"

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr WORDS[] = {"stats"_kj, "on"_kj, "off"_kj};

}  // namespace

kj::ArrayPtr<const kj::StringPtr> balloonWords() {
  return WORDS;
}

void applyBalloonOption(kj::StringPtr text, VmConfig::Builder config) {
  if (text == "off") {
    config.disownBalloon();
  } else if (text == "stats") {
    config.initBalloon().setStats(true);
  } else if (text == "" || text == "on") {
    config.initBalloon();
  } else {
    UserError(codes::NOT_A_CHOICE, kj::str("--balloon ", quote(text),
                                           " is not possible; it takes stats, on or off, or "
                                           "nothing for on",
                                           didYouMean(text, WORDS)))
        .advice("see", "a configuration file stands before --balloon, or as ./NAME behind it")
        .raise();
  }
}

kj::Maybe<BalloonPlan> planBalloon(VmConfig::Reader config) {
  if (!config.hasBalloon()) return nullptr;
  return BalloonPlan{config.getBalloon().getStats()};
}

}  // namespace troupe
