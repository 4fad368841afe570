// What a user does to the guest of a VM: its buttons, a pause, an end.

#include <kj/debug.h>

#include "protos/fd_handle.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// A guest that was still booting at the first press hears a later one.
constexpr kj::Duration PRESS_AGAIN = 10 * kj::SECONDS;

}  // namespace

void LocalVm::stop(kj::String reason) {
  if (stopReason != nullptr) return;
  stopReason = kj::mv(reason);
  stopFulfiller->fulfill();
}

void LocalVm::shutDown(kj::Duration patience) {
  if (guest == nullptr) return stop(kj::str("stopped before its guest ran"));
  auto& timer = io.provider->getTimer();
  auto end = timer.now() + patience;
  if (leaving && end >= patienceEnds) return;  // somebody has less patience
  patienceEnds = end;
  waiting = timer.atTime(end)
                .then([this, patience]() {
                  stop(kj::str("stopped: its guest did not power off within ",
                               patience / kj::SECONDS, " s of being asked to"));
                })
                .eagerlyEvaluate(nullptr);
  if (leaving) return;
  leaving = true;
  auto& course = *KJ_ASSERT_NONNULL(guest);
  course.isLeaving();
  auto awake = course.isPaused() ? course.resume() : kj::Promise<void>(kj::READY_NOW);
  pressing =
      awake.then([this]() { return pressPowerButton(); }).eagerlyEvaluate([](kj::Exception&&) {
        // The broker is gone, or does not listen: its end or the end of patience is that of the VM.
      });
}

kj::Promise<void> LocalVm::pressPowerButton() {
  return powerButton()
      .then([this]() { return io.provider->getTimer().afterDelay(PRESS_AGAIN); })
      .then([this]() { return pressPowerButton(); });
}

kj::Promise<void> LocalVm::powerButton() {
  KJ_IF_MAYBE (client, broker) {
    return client->powerButtonRequest().send().ignoreResult();
  }
  KJ_FAIL_REQUIRE("the VM has ended");
}

GuestCourse& LocalVm::requireGuest(kj::StringPtr wish) {
  KJ_IF_MAYBE (course, guest) {
    if (!leaving) return **course;
  }
  UserError(codes::NOT_RUNNING,
            kj::str("VM ", quote(place->name()), " cannot be ", wish, ": it is ", state()))
      .raise();
}

kj::Promise<void> LocalVm::pause() {
  return requireGuest("paused").pause();
}

kj::Promise<void> LocalVm::resume() {
  return requireGuest("resumed").resume();
}

kj::Promise<void> LocalVm::reset() {
  return requireGuest("reset").reset();
}

void LocalVm::describeBoot(BootFiles::Builder boot) {
  boot.setKernel(handleToCopy(files.kernel.fd));
  KJ_IF_MAYBE (initrd, files.initrd) {
    boot.setInitrd(handleToCopy(initrd->fd));
  }
  KJ_IF_MAYBE (tree, files.deviceTree) {
    boot.setDeviceTree(handleToCopy(tree->fd));
  }
  boot.setCommandLine(plan.cmdline);
  boot.setKind(plan.kernelKind);
}

void LocalVm::handBootFiles(GuestCourse::RebootRequest& request) {
  describeBoot(request.initFiles());
}

kj::StringPtr LocalVm::state() const {
  KJ_IF_MAYBE (course, guest) {
    if (leaving) return "stopping"_kj;
    if ((*course)->isRebooting()) return "restarting"_kj;
    return (*course)->isPaused() ? "paused"_kj : "running"_kj;
  }
  return running ? "ending"_kj : "starting"_kj;
}

}  // namespace troupe
