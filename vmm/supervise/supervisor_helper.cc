// Devices that have a helper, a process without which they are no use: each device process has one
// of its own.

#include <kj/debug.h>

#include "vmm/net/net_start.h"
#include "vmm/supervise/ward.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

// A helper's end may be its device's.
constexpr kj::Duration CAUSE_WAIT = 100 * kj::MILLISECONDS;

}  // namespace

// Of a connection between the next process and its helper, which each pair of them has anew: where
// one of them stopped in the old one nobody knows.
kj::AutoCloseFd Supervisor::makeHelperEnd(Ward& ward) {
  auto ends = makeFrameSockets();
  ward.succession.exchange("socket", kj::mv(ends.ours));
  return kj::mv(ends.theirs);
}

void Supervisor::renewHelper(Ward& ward, kj::AutoCloseFd end) {
  KJ_IF_MAYBE (helper, ward.device.helper) {
    ward.helperLife = nullptr;
    ward.helperLook = nullptr;
    auto& place = ground.company.helpers[helper->index];
    ground.inspection.forget(*place);
    ward.isHelperNew = true;
    place = nullptr;  // killed, and what it listened to is free
    place = helper->launch(kj::mv(end));
    watchHelper(ward);
  }
}

// Without its helper a device is no use, and a new helper can do nothing with the old connection.
void Supervisor::watchHelper(Ward& ward) {
  KJ_IF_MAYBE (helper, ward.device.helper) {
    auto& actor = *ground.company.helpers[helper->index];
    ward.helperLife =
        actor.onExit()
            .then([this](int status) {
              // It ends by itself when its device has.
              auto& timer = ground.io.provider->getTimer();
              return timer.afterDelay(CAUSE_WAIT).then([status]() { return status; });
            })
            .then([&ward, &actor](int status) {
              auto device = ward.device.actor.get();
              if (device == nullptr || device->waitStatus() != nullptr) return;
              printError(kj::str("troupe: ", actor.describe(), " ", describeWaitStatus(status),
                                 "; its device is started anew with another\n"));
              device->child().kill();
            })
            .eagerlyEvaluate(nullptr);
  }
}

kj::Promise<void> Supervisor::attestHelper(Ward& ward) {
  KJ_IF_MAYBE (helper, ward.device.helper) {
    auto& actor = *ground.company.helpers[helper->index];
    return actor.started()
        .then([this, &actor]() { return ground.inspection.attestHelper(actor); })
        .then([&ward]() { ward.isHelperNew = false; })
        .catch_([this, &actor](kj::Exception&& failure) {
          // If it has died, that is why, and its device is started anew in a moment.
          return timer()
              .afterDelay(DEATH_WAIT)
              .then([&actor, failure = kj::mv(failure)]() mutable -> kj::Promise<void> {
                if (actor.isEnding()) return kj::NEVER_DONE;
                kj::throwFatalException(kj::mv(failure));
              });
        });
  }
  return kj::READY_NOW;
}

}  // namespace troupe
