#include "vmm/supervise/blame.h"

#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>

#include "devices/console/detach.h"
#include "vmm/actors/refusal.h"
#include "vmm/words/wait_status.h"

namespace troupe {

int blame(int status) {
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGSYS ? 3 : 2;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

kj::Maybe<Actor&> firstToBlame(Company& company) {
  Actor* worst = nullptr;
  company.forEach([&](Actor& actor) {
    if (actor.kind() == "recorder") return;
    KJ_IF_MAYBE (status, actor.waitStatus()) {
      if (worst == nullptr || blame(*status) > blame(KJ_ASSERT_NONNULL(worst->waitStatus()))) {
        worst = &actor;
      }
    }
  });
  if (worst == nullptr) return nullptr;
  return *worst;
}

bool userDetached(Company& company) {
  bool detached = false;
  company.forEach([&](Actor& actor) {
    KJ_IF_MAYBE (status, actor.waitStatus()) {
      bool hasTerminal = actor.kind() == "serial" || actor.kind() == "console";
      detached = detached || (hasTerminal && WIFEXITED(*status) &&
                              WEXITSTATUS(*status) == console::DETACH_STATUS);
    }
  });
  return detached;
}

UserError diedAtStart(Actor& actor, int status) {
  KJ_IF_MAYBE (refusal,
               explainRefusal(actor, kj::str(actor.describe(), " died before the guest ran"))) {
    return kj::mv(*refusal);
  }
  auto what = kj::str(actor.describe(), " ", describeWaitStatus(status), " before the guest ran");
  auto words = actor.log().lastWords();
  if (words.size() > 0 && words.back().startsWith("TRP-")) {
    kj::Exception reason(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(words.back()));
    return wrapActorError(reason, codes::ACTOR_DIED, what);
  }
  UserError error(codes::ACTOR_DIED, kj::mv(what));
  addLastWords(error, actor, words);
  return error;
}

}  // namespace troupe
