// Devices that live and are to end: the broker lost them, or they do not get on.

#include <kj/debug.h>

#include "vmm/supervise/ward.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// Between two losses that the broker speaks of.
constexpr kj::Duration LOSS_PAUSE = 10 * kj::MILLISECONDS;

}  // namespace

// The broker also loses those that live on: they do not let go of their queues, or closed the pipe.
kj::Promise<void> Supervisor::watchLosses() {
  return broker.nextLossRequest().send().then([this](auto&& loss) {
    noteLoss(loss.getDevice(), loss.getProcess(), loss.getWhy());
    // Whoever broke into the broker may have as many as it likes.
    return timer().afterDelay(LOSS_PAUSE).then([this]() { return watchLosses(); });
  });
}

void Supervisor::noteLoss(uint16_t device, uint32_t process, kj::StringPtr why) {
  for (auto& one : wards) {
    auto& ward = *one;
    if (ward.index != device) continue;
    // Of one that died before, the number is known until another one serves.
    bool isServing = ward.process == process && (ward.isServing || ward.isTakingOver);
    if (isServing) {
      noteLossOfServing(ward, why);
    } else if (ward.isSpareReady && ward.spareProcess == process) {
      giveUpSpare(ward);
    }
  }
}

void Supervisor::noteLossOfServing(Ward& ward, kj::StringPtr why) {
  auto& actor = *ward.device.actor;
  if (actor.waitStatus() != nullptr) return;
  if (why == "closed its pipe") {
    // As most do that die. That it dies is known before, of one that is traced.
    bool livesOn = actor.child().isTraced() && !actor.isEnding();
    if (livesOn) ward.hung = "it closed its pipe and lived on"_kj;
  } else {
    ward.hung = ward.isTakingOver ? "it did not take over from the process before"_kj
                                  : "it did not let go of its queues"_kj;
  }
  actor.child().kill();
}

// It is of no use: whoever made it sees its end.
void Supervisor::giveUpSpare(Ward& ward) {
  ward.spareIsNoMore();
  KJ_ASSERT_NONNULL(ward.device.spare).actor->child().kill();
}

kj::Promise<void> Supervisor::watchBeats() {
  auto pause = Heartbeat::AT_REST;
  auto now = timer().now();
  for (auto& ward : wards)
    pause = kj::min(pause, judge(*ward, now));
  // Of several VMs in this process, all are looked at while it is awake.
  auto last = now - (now - kj::origin<kj::TimePoint>()) % pause;
  return timer().atTime(last + pause).then([this]() { return watchBeats(); });
}

void Supervisor::tellOfQuarantine(Ward& ward) {
  KJ_IF_MAYBE (message, ward.quarantine.writeNew()) {
    printError(kj::str("troupe: ", *message, "\n"));
    putAside(ward.quarantine.ofDevice(), *message);
  }
}

// How long until it is to be looked at again.
kj::Duration Supervisor::judge(Ward& ward, kj::TimePoint now) {
  tellOfQuarantine(ward);
  auto pause = Heartbeat::AT_REST;
  if (!isJudging()) {
    ward.heartbeat.forget();
    ward.spareHeartbeat.forget();
    return pause;
  }
  if (ward.device.actor.get() == nullptr) return pause;  // the VM is about to end for that
  auto& actor = *ward.device.actor;
  if ((ward.isServing || ward.isTakingOver) && actor.waitStatus() == nullptr) {
    KJ_IF_MAYBE (why, ward.heartbeat.look(now, ward.succession.signs(ward.place))) {
      if (!isDebugged(actor.child().pid())) {
        ward.hung = *why;
        actor.child().kill();
      }
    }
    pause = kj::min(pause, ward.heartbeat.pause());
  }
  if (ward.isSpareReady) {
    auto signs = ward.succession.signs(ward.place ^ 1);
    bool isHung = ward.spareHeartbeat.look(now, signs) != nullptr;
    if (isHung && ward.exchange == nullptr) giveUpSpare(ward);
    pause = kj::min(pause, ward.spareHeartbeat.pause());
  }
  return pause;
}

}  // namespace troupe
