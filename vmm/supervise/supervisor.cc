#include "vmm/supervise/supervisor.h"

#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>

#include "protos/fd_handle.h"
#include "vmm/actors/child_log.h"
#include "vmm/actors/refusal.h"
#include "vmm/supervise/blame.h"
#include "vmm/supervise/ward.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

// A successor that does not come to serve within this is hung.
constexpr kj::Duration START_DEADLINE = 10 * kj::SECONDS;
// Its helper, a program of somebody else's, has as long again.
constexpr kj::Duration HELPER_DEADLINE = 10 * kj::SECONDS;
// What is to be said of a death waits until the spare has had the CPU.
constexpr kj::Duration WORDS_REST = 5 * kj::MILLISECONDS;

// A death is its own but for a SIGKILL: from its user, the host that is out of memory, or `troupe`.
bool isOwnFault(int status) {
  return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

kj::StringPtr consequenceOf(AfterDeath next) {
  switch (next) {
    case AfterDeath::REPLACED:
      return "; another process takes its place"_kj;
    case AfterDeath::STAYS_DOWN:
      return " for the third time within 10 s; it stays down until its driver resets it"_kj;
    case AfterDeath::IS_LOST:
      return " and is not replaced any more"_kj;
  }
  KJ_UNREACHABLE;
}

}  // namespace

Supervisor::Supervisor(Ground ground, Broker::Client broker, kj::Function<void(uint16_t)> replaced,
                       Died died, PutAside putAside, kj::Function<bool()> isJudging)
    : ground(ground),
      broker(kj::mv(broker)),
      replaced(kj::mv(replaced)),
      died(kj::mv(died)),
      putAside(kj::mv(putAside)),
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
  using Status = kj::Maybe<int>;
  auto& actor = *ward.device.actor;
  auto killed = actor.onKilled().then([this, &ward]() -> kj::Promise<Status> {
    if (!mayBeginEarly(ward)) return kj::NEVER_DONE;
    return Status(nullptr);
  });
  return actor.onExit()
      .then([](int status) -> Status { return status; })
      .exclusiveJoin(kj::mv(killed))
      .then([this, &ward](Status status) {
        // At once: the kernel gives what it was known by to the next process of any device.
        ground.inspection.forget(*ward.device.actor);
        ward.tidying = nullptr;
        KJ_IF_MAYBE (known, status) {
          return deal(ward, *known);
        }
        if (mayBeginEarly(ward)) return beginEarly(ward);
        // Its spare has died meanwhile.
        return ward.device.actor->onExit().then(
            [this, &ward](int status) { return deal(ward, status); });
      });
}

// With the end of the process that served.
kj::Promise<void> Supervisor::deal(Ward& ward, int status) {
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
}

// Whether a spare is to be told to take over from one that SIGKILL has begun to end: it waits for
// that end itself, and is told by the kernel. By the time it is there, all that is to be said to it
// has been.
bool Supervisor::mayBeginEarly(Ward& ward) {
  bool isKilledByAnother = ward.isServing && ward.hung == nullptr && !ward.isHandingOver;
  if (!isKilledByAnother || !ward.isSpareReady || ward.exchange != nullptr) return false;
  auto& policy = ward.succession.policy();
  return KJ_ASSERT_NONNULL(ward.device.spare).waits &&
         ward.deaths.isOneMoreAllowed(timer().now(), policy);
}

kj::Promise<void> Supervisor::beginEarly(Ward& ward) {
  ward.deaths.note(timer().now(), ward.succession.policy(), Deaths::Fault::NOBODYS);
  ward.isServing = false;
  ward.isBlamed = false;
  ward.isEarly = true;
  auto before = kj::mv(ward.device.witness);
  adoptSpare(ward);
  auto& dead = *ward.ended;
  // Nothing else begins before it has ended in full: should the spare die, the next one must not be
  // the first to wait for it.
  auto over =
      dead.onExit()
          .then([this](int status) {
            return timer().afterDelay(WORDS_REST).then([status]() { return status; });
          })
          .then([this, &ward, &dead](int status) {
            tellOfDeath(ward, dead, status, AfterDeath::REPLACED);
          })
          .then([this, witness = kj::mv(before)]() mutable {
            return untilAllHaveLetGo(ground.io.unixEventPort, witness).attach(kj::mv(witness));
          })
          .eagerlyEvaluate(nullptr);
  return resume(ward)
      .then([over = kj::mv(over)]() mutable { return kj::mv(over); })
      .then([this, &ward]() {
        ward.isEarly = false;
        if (ward.isServing) replaced(ward.index);
        return watch(ward);
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
  auto& policy = ward.succession.policy();
  auto fault = isOwn ? Deaths::Fault::OWN : Deaths::Fault::NOBODYS;
  if (!ward.deaths.note(timer().now(), policy, fault)) {
    tellOfDeath(ward, *ward.device.actor, status, AfterDeath::IS_LOST);
    abandon(ward, kj::str("it was replaced ", policy.restarts, " times within ", policy.seconds,
                          " s, as often as its profile lets it be"));
    return kj::READY_NOW;
  }
  bool staysDown = ward.deaths.isThirdOwn();
  tellOfDeath(ward, *ward.device.actor, status,
              staysDown ? AfterDeath::STAYS_DOWN : AfterDeath::REPLACED);
  ward.hung = nullptr;
  if (staysDown) return leaveDown(ward);
  if (ward.deaths.pause() == 0 * kj::SECONDS) return replace(ward);
  return timer().afterDelay(ward.deaths.pause()).then([this, &ward]() { return replace(ward); });
}

void Supervisor::tellOfDeath(Ward& ward, Actor& actor, int status, AfterDeath next) {
  // Whatever its jail killed is a break-in or a mistake of its profile, and is to be seen.
  KJ_IF_MAYBE (refusal, explainRefusal(actor, kj::str(actor.describe(), " died"))) {
    printError(kj::str("troupe: ", refusal->render(), "\n"));
  }
  auto how = describeWaitStatus(status);
  if (&actor == ward.device.actor.get()) {
    KJ_IF_MAYBE (why, ward.hung) {
      how = kj::str("hung (", *why, ") and was killed");
    }
  }
  printError(kj::str("troupe: ", actor.describe(), " ", how, consequenceOf(next), "\n"));
  died(actor, next, how);
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
    adoptSpare(ward);
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
  ward.ended = nullptr;
  ward.endedBuild = nullptr;
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

void Supervisor::adoptSpare(Ward& ward) {
  auto spare = kj::mv(KJ_ASSERT_NONNULL(ward.device.spare));
  ward.device.spare = nullptr;
  ward.isSpareReady = false;
  ward.preparing = nullptr;
  ward.ended = kj::mv(ward.device.actor);
  ward.endedBuild = kj::mv(ward.device.build);
  ward.endedMounts = kj::mv(ward.mounts);
  install(ward, kj::mv(spare));
  ward.process = ward.spareProcess;
  ward.place ^= 1;
  ward.spareFailures.forget();
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

bool Supervisor::isMoving(const Actor& actor) const {
  for (auto& ward : wards) {
    auto& device = ward->device;
    if (device.actor.get() == &actor) {
      if (device.isDown) return false;
      return !ward->isServing || ward->isHandingOver || actor.isEnding();
    }
    KJ_IF_MAYBE (spare, device.spare) {
      if (spare->actor.get() == &actor) return spare->isReady && actor.isEnding();
    }
    KJ_IF_MAYBE (helper, device.helper) {
      auto& its = ground.company.helpers[helper->index];
      if (its.get() == &actor) return ward->isHelperNew || !ward->isServing || actor.isEnding();
    }
  }
  return false;
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
      [this, &ward](kj::Exception&&) -> kj::Promise<void> {
        // One that has died since is replaced in its turn, and so is one that is of no use. Should
        // it be the broker that is gone, there will be no turn.
        auto late = timer().afterDelay(DEATH_WAIT).then([&ward]() -> kj::Promise<int> {
          auto& actor = *ward.device.actor;
          if (!actor.isEnding()) ward.hung = "it did not take over from the process before"_kj;
          actor.child().kill();
          return kj::NEVER_DONE;
        });
        return ward.device.actor->onExit().exclusiveJoin(kj::mv(late)).then([&ward](int) {
          ward.isTakingOver = false;
        });
      });
}

// The process that was installed goes on.
void Supervisor::serves(Ward& ward) {
  ward.isServing = true;
  ward.isBlamed = false;
  ward.device.actor->log().live();
  KJ_IF_MAYBE (build, ward.nextBuild) {
    ward.succession.adopt(kj::mv(*build));  // the next ones are like this one
    ward.nextBuild = nullptr;
  }
  KJ_IF_MAYBE (told, ward.exchange) {
    (*told)->fulfill();
    ward.exchange = nullptr;
  }
  if (!ward.isEarly) replaced(ward.index);  // else behind what is told of the death
  ward.tidying = tidyUp(ward).eagerlyEvaluate(nullptr);
}

}  // namespace troupe
