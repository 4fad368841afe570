#include "vmm/refusal.h"

namespace troupe {

kj::Maybe<UserError> explainRefusal(Actor& actor, kj::StringPtr consequence) {
  KJ_IF_MAYBE (refused, actor.child().refusedCall()) {
    UserError error(codes::CALL_REFUSED,
                    kj::str(consequence, ": its jail allows no such system call and ended it"));
    error.cause(kj::str("in stage ", refused->stage, " it called ", refused->call));
    for (auto& line : actor.log().lastWords())
      error.cause(line);
    error.advice("see", kj::str(actor.profile().source, "; `troupe policy show ",
                                actor.profile().actor, "`"));
    if (refused->remedy.size() > 0) {
      error.advice("mend", kj::str("unless somebody has broken into it: ", refused->remedy));
    }
    return kj::mv(error);
  }
  return nullptr;
}

}  // namespace troupe
