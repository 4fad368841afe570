#include "vmm/vm/guest_course.h"

#include <kj/debug.h>

#include "vmm/actors/child_log.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_DETAIL = 400;
// A reboot that fails because something was lost fails before that is told. So long it may take.
constexpr kj::Duration CAUSE_WAIT = 100 * kj::MILLISECONDS;

bool isCrash(EndReason reason) {
  return reason == EndReason::CRASHED || reason == EndReason::PANICKED;
}

kj::StringPtr causeOf(EndReason reason) {
  if (reason == EndReason::PANICKED) return "panic"_kj;
  return reason == EndReason::CRASHED ? "crash"_kj : "guest"_kj;
}

}  // namespace

GuestCourse::GuestCourse(kj::Timer& timer, Broker::Client broker, kj::StringPtr name,
                         OnReboot onReboot, kj::Function<void(RebootRequest&)> handFiles,
                         kj::Duration deadline, kj::Maybe<GuestWatch&> watch)
    : timer(timer),
      broker(kj::mv(broker)),
      name(kj::heapString(name)),
      onReboot(onReboot),
      handFiles(kj::mv(handFiles)),
      deadline(deadline),
      watch(watch),
      bootedAt(timer.now()) {}

kj::Promise<void> GuestCourse::untilEnd() {
  return follow().exclusiveJoin(kj::mv(failed.promise));
}

// From boot to boot.
kj::Promise<void> GuestCourse::follow() {
  return broker.waitForEndRequest().send().then(
      [this](auto&& response) { return afterEnd(response.getEnd()); });
}

kj::Promise<void> GuestCourse::afterEnd(End::Reader end) {
  bool isGuestsOwn = isCrash(end.getReason()) || end.getReason() == EndReason::RESET;
  if (isGuestsOwn && end.getBoot() < boots) {
    // Of a boot that somebody has ended already. A broker that repeats itself does not keep us
    // busy.
    return timer.afterDelay(1 * kj::MILLISECONDS).then([this]() { return follow(); });
  }
  GuestEnd copy{end.getReason(), escape(end.getDetail(), LONGEST_DETAIL), end.getDevice()};
  KJ_IF_MAYBE (w, watch) {
    w->guestEnded(copy);
  }
  if (!startsAnew(copy)) {
    result.end = kj::mv(copy);
    return kj::READY_NOW;
  }
  return timer.atTime(bootedAt + SHORTEST_BOOT)
      .then([this, boot = boots, cause = causeOf(copy.reason)]() -> kj::Promise<void> {
        if (boots != boot) return kj::READY_NOW;  // somebody pressed the button meanwhile
        return resetFor(cause);
      })
      // When it cannot be, the broker's next answer or cannotReboot() says why.
      .catch_([](kj::Exception&&) {})
      .then([this]() { return follow(); });
}

kj::Promise<void> GuestCourse::pause() {
  return broker.pauseRequest().send().ignoreResult().then([this]() { setPaused(true); });
}

kj::Promise<void> GuestCourse::resume() {
  return broker.resumeRequest().send().ignoreResult().then([this]() { setPaused(false); });
}

void GuestCourse::setPaused(bool isPaused) {
  if (paused == isPaused) return;
  paused = isPaused;
  KJ_IF_MAYBE (w, watch) {
    w->guestPaused(isPaused);
  }
}

bool GuestCourse::startsAnew(const GuestEnd& end) {
  if (onReboot == OnReboot::EXIT || leaving) return false;
  if (end.reason == EndReason::RESET) return true;
  if (!isCrash(end.reason)) return false;
  if (limit.crashed(timer.now())) {
    result.crashes = CrashLimit::MOST;
    return false;
  }
  // The limit bounds how often this is said.
  printError(kj::str("troupe: the guest of VM ", quote(name),
                     end.reason == EndReason::PANICKED ? " panicked" : " crashed",
                     end.detail.size() > 0 ? kj::str(" (", end.detail, ")") : kj::str(),
                     " and starts anew\n"));
  return true;
}

kj::Promise<void> GuestCourse::reset() {
  return resetFor("asked");
}

kj::Promise<void> GuestCourse::resetFor(kj::StringPtr cause) {
  if (!underWay) rebooting = startAnew(cause).fork();
  return rebooting.addBranch();
}

kj::Promise<void> GuestCourse::startAnew(kj::StringPtr cause) {
  underWay = true;
  boots++;
  bootedAt = timer.now();
  auto request = broker.rebootRequest();
  handFiles(request);
  auto late = timer.afterDelay(deadline).then([this]() {
    UserError(codes::REBOOT_FAILED,
              kj::str("the guest of VM ", quote(name), " did not start anew within ",
                      deadline / kj::SECONDS, " s"))
        .raise();
  });
  return request.send()
      .ignoreResult()
      .exclusiveJoin(kj::mv(late))
      .then(
          [this, cause]() {
            underWay = false;
            KJ_IF_MAYBE (w, watch) {
              w->guestStartedAnew(cause, boots);
            }
          },
          [this](kj::Exception&& failure) {
            underWay = false;
            cannotReboot(kj::cp(failure));
            kj::throwFatalException(kj::mv(failure));
          });
}

// A lost device, a broker that is gone: others find that out, and know more of it. So the reason is
// only noted, and comes to the fore when nothing else did.
void GuestCourse::cannotReboot(kj::Exception&& failure) {
  if (failure.getType() != kj::Exception::Type::DISCONNECTED) {
    result.rebootFailure =
        wrapActorError(failure, codes::REBOOT_FAILED,
                       kj::str("the guest of VM ", quote(name), " could not be started anew"))
            .render();
  }
  failing = timer.afterDelay(CAUSE_WAIT)
                .then([this]() { failed.fulfiller->fulfill(); })
                .eagerlyEvaluate(nullptr);
}

}  // namespace troupe
