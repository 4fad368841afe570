#include "vmm/vm/verdict.h"

#include <kj/debug.h>

#include "vmm/actors/refusal.h"
#include "vmm/supervise/blame.h"
#include "vmm/vm/crash_limit.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

VmEnd deviceAbandoned(kj::StringPtr name, Actor& actor, kj::StringPtr why) {
  // What its jail had to do with it was told when it died.
  UserError error(codes::DEVICE_ABANDONED,
                  kj::str("the VM ", quote(name), " lost ", actor.describe(), " for good: ", why));
  KJ_IF_MAYBE (status, actor.waitStatus()) {
    error.cause(kj::str("it ", describeWaitStatus(*status)));
  }
  addLastWords(error, actor, actor.log().lastWords());
  return {ExitCode::DEVICE_LOST, error.render()};
}

VmEnd deviceLost(kj::StringPtr name, kj::StringPtr who, kj::StringPtr how, Actor* actor) {
  auto lost = kj::str("the VM ", quote(name), " lost ", who);
  if (actor != nullptr) {
    KJ_IF_MAYBE (refusal, explainRefusal(*actor, lost)) {
      return {ExitCode::DEVICE_LOST, refusal->render()};
    }
  }
  UserError error(codes::DEVICE_LOST, kj::str(lost, ": ", how));
  if (actor != nullptr) addLastWords(error, *actor, actor->log().lastWords());
  return {ExitCode::DEVICE_LOST, error.render()};
}

VmEnd crashed(kj::StringPtr name, const GuestEnd& end, uint32_t crashes) {
  bool panicked = end.reason == EndReason::PANICKED;
  auto exit = panicked ? ExitCode::GUEST_PANICKED : ExitCode::GUEST_CRASHED;
  auto whose = kj::str("the guest of VM ", quote(name), panicked ? " panicked" : " crashed");
  if (crashes > 0) {
    UserError error(codes::CRASH_LOOP,
                    kj::str(whose, ", the ", crashes, "th time within ",
                            CrashLimit::PERIOD / kj::SECONDS, " s, and is not started anew"));
    if (end.detail.size() > 0) error.cause(end.detail);
    return {exit, error.render()};
  }
  UserError error(panicked ? codes::GUEST_PANICKED : codes::GUEST_CRASHED, kj::mv(whose));
  if (end.detail.size() > 0) error.cause(end.detail);
  return {exit, error.render()};
}

}  // namespace

VmEnd verdictOn(kj::StringPtr name, Company& company, const GuestOutcome& outcome,
                const kj::Maybe<kj::String>& stopReason) {
  KJ_IF_MAYBE (reason, stopReason) {
    return {ExitCode::STOPPED, kj::str("the VM ", quote(name), " was ", *reason)};
  }
  if (userDetached(company)) {
    return {ExitCode::STOPPED, kj::str("the VM ", quote(name), " was stopped by the detach key")};
  }
  KJ_IF_MAYBE (end, outcome.end) {
    switch (end->reason) {
      case EndReason::POWERED_OFF:
        return {ExitCode::POWERED_OFF, nullptr};
      case EndReason::RESET:
        return {ExitCode::GUEST_RESET,
                kj::str("the guest of VM ", quote(name), " asked for a reset")};
      case EndReason::CRASHED:
      case EndReason::PANICKED:
        return crashed(name, *end, outcome.crashes);
      case EndReason::DEVICE_LOST:
        if (end->device < company.devices.size()) {
          auto& actor = *company.devices[end->device].actor;
          KJ_IF_MAYBE (status, actor.waitStatus()) {
            return deviceLost(name, actor.describe(), kj::str("it ", describeWaitStatus(*status)),
                              &actor);
          }
          return deviceLost(name, actor.describe(), end->detail, &actor);
        }
        break;
      case EndReason::HOST_MEMORY_LOST: {
        UserError lost(codes::HOST_MEMORY_LOST,
                       kj::str("memory of the host's that the guest of VM ", quote(name),
                               " came to is not there any more"));
        lost.cause(end->detail);
        lost.cause("its file has become shorter, its file system is full, or its device is gone");
        return {ExitCode::BROKER_FAILED, lost.render()};
      }
      default:
        break;
    }
  }
  KJ_IF_MAYBE (abandoned, company.abandoned) {
    // Unless it is the broker's death that keeps it from being replaced.
    if (company.broker->waitStatus() == nullptr) {
      auto& actor = company.devices[abandoned->index].actor;
      if (actor.get() != nullptr) return deviceAbandoned(name, *actor, abandoned->why);
    }
  }
  KJ_IF_MAYBE (actor, firstToBlame(company)) {
    auto how = describeWaitStatus(KJ_ASSERT_NONNULL(actor->waitStatus()));
    if (actor != company.broker.get())
      return deviceLost(name, actor->describe(), kj::str("it ", how), actor);
    auto whose = kj::str("the broker of VM ", quote(name), " ");
    KJ_IF_MAYBE (refusal, explainRefusal(*actor, kj::str(whose, "died"))) {
      return {ExitCode::BROKER_FAILED, refusal->render()};
    }
    UserError error(codes::BROKER_FAILED, kj::str(whose, how));
    addLastWords(error, *actor, actor->log().lastWords());
    return {ExitCode::BROKER_FAILED, error.render()};
  }
  KJ_IF_MAYBE (failure, outcome.rebootFailure) {
    return {ExitCode::BROKER_FAILED, kj::str(*failure)};
  }
  UserError error(codes::BROKER_FAILED, kj::str("the broker of VM ", quote(name), " failed"));
  KJ_IF_MAYBE (end, outcome.end) {
    error.cause(end->detail);
  } else if (company.abandoned != nullptr) {
    error.cause(KJ_ASSERT_NONNULL(company.abandoned).why);
  } else {
    error.cause("it closed its pipe without a word");
  }
  return {ExitCode::BROKER_FAILED, error.render()};
}

}  // namespace troupe
