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
#include "vmm/ward.h"

namespace troupe {

namespace {

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
// So many deaths of its own within this time leave a device down until its driver resets it.
constexpr size_t MOST_OWN_DEATHS = 3;
constexpr kj::Duration OWN_DEATHS_WITHIN = 10 * kj::SECONDS;

// A death is its own but for a SIGKILL: from its user, the host that is out of memory, or `troupe`.
bool isOwnFault(int status) {
  return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void forgetBefore(kj::Vector<kj::TimePoint>& times, kj::TimePoint first) {
  kj::Vector<kj::TimePoint> recent;
  for (auto time : times) {
    if (time > first) recent.add(time);
  }
  times = kj::mv(recent);
}

}  // namespace

Supervisor::Supervisor(Ground ground, Broker::Client broker, kj::Function<void(uint16_t)> replaced,
                       kj::Function<void(Actor&, bool)> died, kj::Function<bool()> isJudging)
    : ground(ground),
      broker(kj::mv(broker)),
      replaced(kj::mv(replaced)),
      died(kj::mv(died)),
      isJudging(kj::mv(isJudging)),
      abandoned(kj::newPromiseAndFulfiller<void>()),
      abandonment(abandoned.promise.fork()),
      losses(watchLosses().eagerlyEvaluate([](kj::Exception&&) {})),
      beats(nullptr) {
  auto& devices = ground.company.devices;
  for (uint16_t i = 0; i < devices.size(); i++) {
    KJ_IF_MAYBE (succession, devices[i].succession) {
      auto& ward = *wards.add(kj::heap<Ward>(ground.vm, i, devices[i], **succession));
      watchHelper(ward);
      ward.life = watch(ward).eagerlyEvaluate(
          [this, &ward](kj::Exception&& failure) { abandon(ward, hostileReason(failure)); });
      wantSpare(ward);
    }
  }
  if (wards.size() > 0) {
    beats = watchBeats().eagerlyEvaluate([](kj::Exception&& failure) { KJ_LOG(ERROR, failure); });
  }
}

Supervisor::~Supervisor() noexcept(false) {
  for (auto& ward : wards) {
    ward->life = nullptr;
    dropSpare(*ward);
    tellOfQuarantine(*ward);
  }
}

void Supervisor::abandon(Ward& ward, kj::String why) {
  if (ground.company.abandoned == nullptr) {
    ground.company.abandoned = AbandonedDevice{ward.index, kj::mv(why)};
  }
  abandoned.fulfiller->fulfill();
}

kj::Promise<void> Supervisor::watch(Ward& ward) {
  return ward.device.actor->onExit().then([this, &ward](int status) -> kj::Promise<void> {
    // At once: the kernel gives what it was known by to the next process of any device.
    ground.inspection.forget(*ward.device.actor);
    if (userDetached(ground.company)) {
      abandoned.fulfiller->fulfill();
      return kj::READY_NOW;
    }
    bool endsWell = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (ward.hasHandedOver || (ward.isHandingOver && endsWell)) return takePlace(ward);
    if (blame(status) > 0) return succeed(ward, status);
    return brokerLives().then([this, &ward, status](bool lives) -> kj::Promise<void> {
      if (!lives) return kj::READY_NOW;
      return succeed(ward, status);
    });
  });
}

// A device that ends without a word has lost its pipe, most often because the broker is on its way
// out, whose pipe to `troupe` was closed before the devices'.
kj::Promise<bool> Supervisor::brokerLives() {
  auto answer = broker.countersRequest().send().then([](auto&&) { return true; },
                                                     [](kj::Exception&&) { return false; });
  return ground.company.broker->onExit()
      .then([](int) { return false; })
      .exclusiveJoin(kj::mv(answer));
}

// Of one that was asked to hand over, and has.
kj::Promise<void> Supervisor::takePlace(Ward& ward) {
  ward.isServing = false;
  ward.isBlamed = false;
  ward.hung = nullptr;
  return replace(ward);
}

kj::Promise<void> Supervisor::succeed(Ward& ward, int status) {
  bool isOwn = isOwnFault(status) || ward.hung != nullptr;
  // One that died before it was told to go on had nothing in flight.
  if (ward.isServing) {
    ward.isBlamed = isOwn;
  } else {
    endExchange(ward,
                "the new process died before it served; one like those before takes its place");
  }
  ward.isServing = false;
  if (!countDeath(ward, isOwn)) {
    auto& policy = ward.succession.policy();
    tellOfDeath(ward, status, "and is not replaced any more");
    abandon(ward, kj::str("it was replaced ", policy.restarts, " times within ", policy.seconds,
                          " s, as often as its profile lets it be"));
    return kj::READY_NOW;
  }
  bool staysDown = isOwn && ward.ownDeaths.size() >= MOST_OWN_DEATHS;
  tellOfDeath(ward, status,
              staysDown ? "for the third time within 10 s; it stays down until its driver resets it"
                        : "; another process takes its place");
  ward.hung = nullptr;
  died(*ward.device.actor, !staysDown);
  if (staysDown) return leaveDown(ward);
  if (ward.inARow < 2) return replace(ward);
  auto pause = FIRST_PAUSE * (1u << kj::min(ward.inARow - 2, MOST_DOUBLINGS));
  return timer().afterDelay(pause).then([this, &ward]() { return replace(ward); });
}

// False when its profile allows no other process.
bool Supervisor::countDeath(Ward& ward, bool isOwn) {
  auto now = timer().now();
  auto& policy = ward.succession.policy();
  if (policy.restarts > 0) {
    forgetBefore(ward.deaths, now - policy.seconds * kj::SECONDS);
    if (ward.deaths.size() >= policy.restarts) return false;
    ward.deaths.add(now);
  }
  forgetBefore(ward.ownDeaths, now - OWN_DEATHS_WITHIN);
  if (ward.ownDeaths.size() == 0) ward.inARow = 0;
  ward.inARow = isOwn ? ward.inARow + 1 : 0;
  if (isOwn) ward.ownDeaths.add(now);
  return true;
}

void Supervisor::tellOfDeath(Ward& ward, int status, kj::StringPtr consequence) {
  auto& actor = *ward.device.actor;
  // Whatever its jail killed is a break-in or a mistake of its profile, and is to be seen.
  KJ_IF_MAYBE (refusal, explainRefusal(actor, kj::str(actor.describe(), " died"))) {
    printError(kj::str("troupe: ", refusal->render(), "\n"));
  }
  auto how = describeWaitStatus(status);
  KJ_IF_MAYBE (why, ward.hung) {
    how = kj::str("hung (", *why, ") and was killed");
  }
  auto gap = consequence.startsWith(";") ? ""_kj : " "_kj;
  printError(kj::str("troupe: ", actor.describe(), " ", how, gap, consequence, "\n"));
}

kj::Promise<void> Supervisor::leaveDown(Ward& ward) {
  dropSpare(ward);
  ward.device.isDown = true;
  auto request = broker.leaveDownRequest();
  request.setDevice(ward.index);
  return request.send().ignoreResult().then([this, &ward]() {
    ward.device.isDown = false;
    printError(kj::str("troupe: the driver of ", ward.device.actor->describe(),
                       " resets it; another process takes its place\n"));
    return replace(ward);
  });
}

kj::Promise<void> Supervisor::replace(Ward& ward) {
  auto& device = ward.device;
  ward.isHandingOver = ward.hasHandedOver = false;
  ward.ending = nullptr;
  // A read or write that came late would undo what the successor does.
  auto quiet =
      untilAllHaveLetGo(ground.io.unixEventPort, device.witness).attach(kj::mv(device.witness));
  if (ward.isSpareReady) {
    auto spare = kj::mv(KJ_ASSERT_NONNULL(device.spare));
    device.spare = nullptr;
    ward.isSpareReady = false;
    ward.preparing = nullptr;
    ward.ended = kj::mv(device.actor);
    ward.endedBuild = kj::mv(device.build);
    install(ward, kj::mv(spare));
    ward.process = ward.spareProcess;
    ward.place ^= 1;
    if (device.helper != nullptr) {
      renewHelper(ward, kj::mv(ward.spareHelperEnd));
      ward.helperLook = attestHelper(ward).eagerlyEvaluate(
          [this, &ward](kj::Exception&& failure) { abandon(ward, hostileReason(failure)); });
    }
    return quiet.then([this, &ward]() { return resume(ward); }).then([this, &ward]() {
      return watch(ward);
    });
  }
  dropSpare(ward);
  device.actor = nullptr;  // its control group has the name that the next one's is to have
  if (device.helper != nullptr) renewHelper(ward, makeHelperEnd(ward));
  auto next = ward.succession.launch(ground.io, ground.launcher);
  auto pipe = kj::mv(next.brokerEnd);
  install(ward, kj::mv(next));
  ward.place = 0;
  return prepare(ward, *device.actor, kj::mv(pipe), /*isBeside=*/false)
      .then([this, &ward, quiet = kj::mv(quiet)](kj::Maybe<uint32_t> process) mutable {
        return quiet.then([this, &ward, process]() -> kj::Promise<void> {
          KJ_IF_MAYBE (number, process) {
            ward.process = *number;
            return resume(ward);
          }
          return kj::READY_NOW;
        });
      })
      .then([this, &ward]() { return watch(ward); });
}

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
    return actor.started().then([this, &actor]() { return ground.inspection.attestHelper(actor); });
  }
  return kj::READY_NOW;
}

void Supervisor::install(Ward& ward, Succession::Member member) {
  auto& device = ward.device;
  device.actor = kj::mv(member.actor);
  device.build = kj::mv(member.build);
  device.brokerObject = kj::mv(member.brokerObject);
  device.witness = kj::mv(member.witness);
  device.line = kj::mv(member.line);
  device.restarts++;
  ward.heartbeat.forget();
}

// The broker's number for it; none when it has ended.
kj::Promise<kj::Maybe<uint32_t>> Supervisor::prepare(Ward& ward, Actor& actor, kj::AutoCloseFd pipe,
                                                     bool isBeside) {
  using Prepared = kj::Maybe<uint32_t>;
  auto ready = actor.started()
                   .then([this, &ward, isBeside, pipe = kj::mv(pipe)]() mutable {
                     auto request = broker.replaceDeviceRequest();
                     request.setDevice(ward.index);
                     request.setPipe(kj::heap<FdHandle>(kj::mv(pipe)));
                     request.setBeside(isBeside);
                     return request.send();
                   })
                   .then([this, &ward, &actor, isBeside](auto&& response) {
                     uint32_t process = response.getProcess();
                     auto attested = ground.inspection.attest(actor);
                     if (!isBeside) {
                       attested = attested.then([this, &ward]() { return attestHelper(ward); });
                     }
                     return attested.then([process]() { return Prepared(process); });
                   })
                   .catch_([this](kj::Exception&& failure) -> kj::Promise<Prepared> {
                     // If it has died, that is why, and it is seen in a moment.
                     return timer()
                         .afterDelay(DEATH_WAIT)
                         .then([failure = kj::mv(failure)]() mutable -> Prepared {
                           kj::throwFatalException(kj::mv(failure));
                         });
                   });
  auto deadline = START_DEADLINE;
  if (ward.device.helper != nullptr && !isBeside) deadline += HELPER_DEADLINE;
  auto hung = timer().afterDelay(deadline).then([&ward, &actor]() -> kj::Promise<Prepared> {
    if (ward.device.actor.get() == &actor) ward.hung = "it did not come to serve"_kj;
    actor.child().kill();
    return kj::NEVER_DONE;
  });
  auto died = actor.onExit().then([](int) -> Prepared { return nullptr; });
  return ready.exclusiveJoin(kj::mv(hung)).exclusiveJoin(kj::mv(died));
}

kj::Promise<void> Supervisor::resume(Ward& ward) {
  auto request = broker.resumeDeviceRequest();
  request.setDevice(ward.index);
  request.setOwnFault(ward.isBlamed);
  ward.isTakingOver = true;
  return request.send().ignoreResult().then(
      [this, &ward]() -> kj::Promise<void> {
        ward.isTakingOver = false;
        serves(ward);
        return kj::READY_NOW;
      },
      [this, &ward](kj::Exception&& failure) -> kj::Promise<void> {
        // One that has died since is replaced in its turn.
        auto late = timer().afterDelay(DEATH_WAIT);
        return ward.device.actor->onExit()
            .ignoreResult()
            .exclusiveJoin(late.then([failure = kj::mv(failure)]() mutable {
              kj::throwFatalException(kj::mv(failure));
            }))
            .then([&ward]() { ward.isTakingOver = false; });
      });
}

// The process that was installed goes on.
void Supervisor::serves(Ward& ward) {
  ward.isServing = true;
  ward.isBlamed = false;
  ward.ended = nullptr;
  ward.endedBuild = nullptr;
  ward.device.actor->log().live();
  KJ_IF_MAYBE (build, ward.nextBuild) {
    ward.succession.adopt(kj::mv(*build));  // the next ones are like this one
    ward.nextBuild = nullptr;
  }
  KJ_IF_MAYBE (told, ward.exchange) {
    (*told)->fulfill();
    ward.exchange = nullptr;
  }
  replaced(ward.index);
  wantSpare(ward);
}

// The broker also loses those that live on: they do not let go of their queues, or closed the pipe.
kj::Promise<void> Supervisor::watchLosses() {
  return broker.nextLossRequest().send().then([this](auto&& loss) {
    noteLoss(loss.getDevice(), loss.getProcess(), loss.getWhy());
    // Whoever broke into the broker may have as many as it likes.
    return timer().afterDelay(LOSS_PAUSE).then([this]() { return watchLosses(); });
  });
}

void Supervisor::noteLoss(uint16_t device, uint32_t process, kj::StringPtr why) {
  for (auto& ward : wards) {
    // Of one that died before, the number is known until another one serves.
    bool isMeant = ward->index == device && ward->process == process;
    if (!isMeant || !(ward->isServing || ward->isTakingOver)) continue;
    auto& actor = *ward->device.actor;
    if (actor.waitStatus() != nullptr) continue;
    if (why != "closed its pipe") {
      ward->hung = ward->isTakingOver ? "it did not take over from the process before"_kj
                                      : "it did not let go of its queues"_kj;
    }
    actor.child().kill();
  }
}

kj::Promise<void> Supervisor::watchBeats() {
  bool isSuspect = false;
  auto now = timer().now();
  for (auto& ward : wards)
    isSuspect |= judge(*ward, now);
  auto pause = isSuspect ? Heartbeat::SOON : Heartbeat::LOOK;
  return timer().afterDelay(pause).then([this]() { return watchBeats(); });
}

void Supervisor::tellOfQuarantine(Ward& ward) {
  KJ_IF_MAYBE (message, ward.quarantine.writeNew()) {
    printError(kj::str("troupe: ", *message, "\n"));
  }
}

// Whether it is to be looked at again soon.
bool Supervisor::judge(Ward& ward, kj::TimePoint now) {
  tellOfQuarantine(ward);
  if (!isJudging()) {
    ward.heartbeat.forget();
    ward.spareHeartbeat.forget();
    return false;
  }
  if (ward.device.actor.get() == nullptr) return false;  // the VM is about to end for that
  bool isSuspect = false;
  auto& actor = *ward.device.actor;
  if ((ward.isServing || ward.isTakingOver) && actor.waitStatus() == nullptr) {
    KJ_IF_MAYBE (why, ward.heartbeat.look(now, ward.succession.signs(ward.place).beats())) {
      if (!isDebugged(actor.child().pid())) {
        ward.hung = *why;
        actor.child().kill();
      }
    }
    isSuspect |= ward.heartbeat.isSuspect();
  }
  if (ward.isSpareReady) {
    auto signs = ward.succession.signs(ward.place ^ 1).beats();
    bool isHung = ward.spareHeartbeat.look(now, signs) != nullptr;
    if (isHung && ward.exchange == nullptr) {
      dropSpare(ward);
      wantSpare(ward);
    }
    isSuspect |= ward.spareHeartbeat.isSuspect();
  }
  return isSuspect;
}

}  // namespace troupe
