#include "vmm/supervisor.h"

#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>

#include "vmm/blame.h"
#include "vmm/child_log.h"
#include "vmm/fd_handle.h"
#include "vmm/net_start.h"
#include "vmm/refusal.h"
#include "vmm/user_error.h"
#include "vmm/wait_status.h"

namespace troupe {

namespace {

// One that ends without a word has lost its pipe, most often because the broker is on its way out;
// the kernel takes its time with a VM.
constexpr kj::Duration BROKER_WAIT = 2 * kj::SECONDS;
// What a death breaks may be seen before the death.
constexpr kj::Duration DEATH_WAIT = 500 * kj::MILLISECONDS;
// A helper's end may be its device's.
constexpr kj::Duration CAUSE_WAIT = 100 * kj::MILLISECONDS;
// Between two losses that the broker speaks of.
constexpr kj::Duration LOSS_PAUSE = 10 * kj::MILLISECONDS;
// A successor that does not come to serve within this is hung.
constexpr kj::Duration START_DEADLINE = 10 * kj::SECONDS;
// Its helper, a program of somebody else's, has as long again.
constexpr kj::Duration HELPER_DEADLINE = 10 * kj::SECONDS;
// Between the deaths of one that keeps dying of itself: this, doubled each time.
constexpr kj::Duration FIRST_PAUSE = 10 * kj::MILLISECONDS;
constexpr uint32_t MOST_DOUBLINGS = 7;

// A death is its own but for a SIGKILL: from its user, the host that is out of memory, or `troupe`.
bool isOwnFault(int status) {
  return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

}  // namespace

struct Supervisor::Ward {
  Ward(uint16_t index, DeviceActor& device, Succession& succession)
      : index(index), device(device), succession(succession), life(nullptr) {}

  const uint16_t index;
  DeviceActor& device;
  Succession& succession;
  kj::Vector<kj::TimePoint> deaths;  // within the time its profile speaks of
  uint32_t ownDeaths = 0;            // in a row
  bool isHung = false;               // and was killed for it
  kj::Promise<void> life;
  kj::Promise<void> helperLife = nullptr;
};

Supervisor::Supervisor(Ground ground, Broker::Client broker, kj::Function<void(uint16_t)> replaced,
                       kj::Function<void(Actor&, bool)> died)
    : ground(ground),
      broker(kj::mv(broker)),
      replaced(kj::mv(replaced)),
      died(kj::mv(died)),
      abandoned(kj::newPromiseAndFulfiller<void>()),
      abandonment(abandoned.promise.fork()),
      losses(watchLosses().eagerlyEvaluate([](kj::Exception&&) {})) {
  auto& devices = ground.company.devices;
  for (uint16_t i = 0; i < devices.size(); i++) {
    KJ_IF_MAYBE (succession, devices[i].succession) {
      auto& ward = *wards.add(kj::heap<Ward>(i, devices[i], **succession));
      watchHelper(ward);
      ward.life = watch(ward).eagerlyEvaluate(
          [this, &ward](kj::Exception&& failure) { abandon(ward, hostileReason(failure)); });
    }
  }
}

Supervisor::~Supervisor() noexcept(false) {}

void Supervisor::abandon(Ward& ward, kj::String why) {
  if (ground.company.abandoned == nullptr) {
    ground.company.abandoned = AbandonedDevice{ward.index, kj::mv(why)};
  }
  abandoned.fulfiller->fulfill();
}

kj::Promise<void> Supervisor::watch(Ward& ward) {
  return ward.device.actor->onExit().then([this, &ward](int status) -> kj::Promise<void> {
    if (userDetached(ground.company)) {
      abandoned.fulfiller->fulfill();
      return kj::READY_NOW;
    }
    if (blame(status) > 0) return succeed(ward, status);
    auto brokerLives =
        ground.io.provider->getTimer().afterDelay(BROKER_WAIT).then([]() { return true; });
    return ground.company.broker->onExit()
        .then([](int) { return false; })
        .exclusiveJoin(kj::mv(brokerLives))
        .then([this, &ward, status](bool lives) -> kj::Promise<void> {
          if (!lives) return kj::READY_NOW;
          return succeed(ward, status);
        });
  });
}

kj::Promise<void> Supervisor::succeed(Ward& ward, int status) {
  // Whatever its jail killed is a break-in or a mistake of its profile, and is to be seen.
  if (explainRefusal(*ward.device.actor, nullptr) != nullptr) {
    abandon(ward, kj::str("its jail killed it"));
    return kj::READY_NOW;
  }
  auto& policy = ward.succession.policy();
  auto now = ground.io.provider->getTimer().now();
  kj::Vector<kj::TimePoint> recent;
  for (auto death : ward.deaths) {
    if (now - death < policy.seconds * kj::SECONDS) recent.add(death);
  }
  ward.deaths = kj::mv(recent);
  if (ward.deaths.size() >= policy.restarts) {
    abandon(ward, kj::str("it was replaced ", policy.restarts, " times within ", policy.seconds,
                          " s, as often as its profile lets it be"));
    return kj::READY_NOW;
  }
  ward.deaths.add(now);

  bool ownFault = isOwnFault(status) || ward.isHung;
  ward.isHung = false;
  ward.ownDeaths = ownFault ? ward.ownDeaths + 1 : 0;
  died(*ward.device.actor, true);
  printError(kj::str("troupe: ", ward.device.actor->describe(), " ", describeWaitStatus(status),
                     "; another process takes its place\n"));
  if (ward.ownDeaths < 2) return replace(ward, ownFault);
  auto pause = FIRST_PAUSE * (1u << kj::min(ward.ownDeaths - 2, MOST_DOUBLINGS));
  return ground.io.provider->getTimer().afterDelay(pause).then(
      [this, &ward, ownFault]() { return replace(ward, ownFault); });
}

kj::Promise<void> Supervisor::replace(Ward& ward, bool ownFault) {
  auto& device = ward.device;
  // A read or write that came late would undo what the successor does.
  auto quiet =
      untilAllHaveLetGo(ground.io.unixEventPort, device.witness).attach(kj::mv(device.witness));
  ground.inspection.forget(*device.actor);
  device.actor = nullptr;  // its control group has the name that the next one's is to have
  renewHelper(ward);
  auto next = ward.succession.launch(ground.io, ground.launcher);
  device.actor = kj::mv(next.actor);
  device.brokerObject = kj::mv(next.brokerObject);
  device.witness = kj::mv(next.witness);
  device.line = kj::mv(next.line);
  device.restarts++;
  return begin(ward, kj::mv(next.brokerEnd))
      .then([this, &ward, ownFault, quiet = kj::mv(quiet)](bool isReady) mutable {
        return quiet.then([this, &ward, ownFault, isReady]() -> kj::Promise<void> {
          if (!isReady) return kj::READY_NOW;
          return resume(ward, ownFault);
        });
      })
      .then([this, &ward]() { return watch(ward); });
}

// The two have a new connection: where one of them stopped in the old one nobody knows.
void Supervisor::renewHelper(Ward& ward) {
  KJ_IF_MAYBE (helper, ward.device.helper) {
    ward.helperLife = nullptr;
    auto ends = makeFrameSockets();
    ward.succession.exchange("socket", kj::mv(ends.ours));
    auto& place = ground.company.helpers[helper->index];
    ground.inspection.forget(*place);
    place = nullptr;  // killed, and what it listened to is free
    place = helper->launch(kj::mv(ends.theirs));
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

kj::Promise<void> Supervisor::attest(Ward& ward) {
  auto attested = ground.inspection.attest(*ward.device.actor);
  KJ_IF_MAYBE (helper, ward.device.helper) {
    auto& actor = *ground.company.helpers[helper->index];
    return attested.then([this, &actor]() {
      return actor.started().then(
          [this, &actor]() { return ground.inspection.attestHelper(actor); });
    });
  }
  return attested;
}

// False when it has ended.
kj::Promise<bool> Supervisor::begin(Ward& ward, kj::AutoCloseFd pipe) {
  auto& timer = ground.io.provider->getTimer();
  auto& actor = *ward.device.actor;
  auto ready = actor.started()
                   .then([this, &ward, pipe = kj::mv(pipe)]() mutable {
                     auto request = broker.replaceDeviceRequest();
                     request.setDevice(ward.index);
                     request.setPipe(kj::heap<FdHandle>(kj::mv(pipe)));
                     return request.send().ignoreResult();
                   })
                   .then([this, &ward]() { return attest(ward); })
                   .then([]() { return kj::Promise<bool>(true); },
                         [&timer](kj::Exception&& failure) -> kj::Promise<bool> {
                           // If it has died, that is why, and it is seen in a moment.
                           return timer.afterDelay(DEATH_WAIT)
                               .then([failure = kj::mv(failure)]() mutable -> bool {
                                 kj::throwFatalException(kj::mv(failure));
                               });
                         });
  auto deadline = START_DEADLINE;
  if (ward.device.helper != nullptr) deadline += HELPER_DEADLINE;
  auto hung = timer.afterDelay(deadline).then([&ward]() -> kj::Promise<bool> {
    ward.isHung = true;
    ward.device.actor->child().kill();
    return kj::NEVER_DONE;
  });
  auto died = actor.onExit().then([](int) { return false; });
  return ready.exclusiveJoin(kj::mv(hung)).exclusiveJoin(kj::mv(died));
}

kj::Promise<void> Supervisor::resume(Ward& ward, bool ownFault) {
  auto request = broker.resumeDeviceRequest();
  request.setDevice(ward.index);
  request.setOwnFault(ownFault);
  return request.send().ignoreResult().then(
      [this, &ward]() -> kj::Promise<void> {
        ward.device.actor->log().live();
        replaced(ward.index);
        return kj::READY_NOW;
      },
      [this, &ward](kj::Exception&& failure) -> kj::Promise<void> {
        // One that has died since is replaced in its turn.
        auto late = ground.io.provider->getTimer().afterDelay(DEATH_WAIT);
        return ward.device.actor->onExit().ignoreResult().exclusiveJoin(late.then(
            [failure = kj::mv(failure)]() mutable { kj::throwFatalException(kj::mv(failure)); }));
      });
}

// The broker also loses those that live on: they do not let go of their queues, or closed the pipe.
kj::Promise<void> Supervisor::watchLosses() {
  return broker.nextLossRequest().send().then([this](auto&& loss) {
    for (auto& ward : wards) {
      auto& device = ward->device;
      if (ward->index != loss.getDevice() || device.restarts != loss.getSuccessors()) continue;
      if (device.actor->waitStatus() != nullptr) continue;
      ward->isHung = loss.getWhy() != "closed its pipe";
      device.actor->child().kill();
    }
    // Whoever broke into the broker may have as many as it likes.
    return ground.io.provider->getTimer().afterDelay(LOSS_PAUSE).then([this]() {
      return watchLosses();
    });
  });
}

}  // namespace troupe
