// Processes that are prepared beside the one that serves: spares, and those of their user's wish.

#include <fcntl.h>
#include <kj/debug.h>

#include "vmm/actors/refusal.h"
#include "vmm/supervise/supervisor.h"
#include "vmm/supervise/ward.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

// The next spare is started when its predecessor, which serves now, has caught up with what its
// driver was kept waiting for: to start a process takes a CPU for a few milliseconds.
constexpr kj::Duration SPARE_REST = 20 * kj::MILLISECONDS;
// One that has handed over delivers what it has to deliver, and ends.
constexpr kj::Duration LAST_WORDS = 5 * kj::SECONDS;

kj::Exception notExchanged(Actor& serving, kj::StringPtr why) {
  return UserError(codes::NOT_EXCHANGED, kj::str(serving.describe(), " is not replaced: ", why))
      .toException();
}

kj::String whatNext(Actor& serving) {
  return kj::str(serving.describe(), " goes on as it was; the new process");
}

kj::Exception notStarted(Actor& serving, const kj::Exception& failure) {
  return wrapActorError(failure, codes::NOT_EXCHANGED,
                        kj::str(whatNext(serving), " could not be started"))
      .toException();
}

// Of the process that was to take `serving`'s place, when it came to nothing.
kj::Exception didNotBegin(Actor& serving, Actor& next, kj::Maybe<kj::Exception&> failure) {
  auto what = whatNext(serving);
  KJ_IF_MAYBE (refusal, explainRefusal(next, kj::str(what, " died"))) {
    return refusal->toException();
  }
  KJ_IF_MAYBE (exception, next.startFailure()) {
    return notStarted(serving, *exception);
  }
  KJ_IF_MAYBE (status, next.waitStatus()) {
    UserError error(codes::NOT_EXCHANGED,
                    kj::str(what, " ", describeWaitStatus(*status), " before it was ready"));
    addLastWords(error, next, next.log().lastWords());
    return error.toException();
  }
  KJ_IF_MAYBE (exception, failure) {
    return wrapActorError(*exception, codes::NOT_EXCHANGED, kj::str(what, " is not fit to serve"))
        .toException();
  }
  return notExchanged(serving, "the new process ended");
}

// None where it cannot be had, which does no harm.
kj::AutoCloseFd mountsOf(Actor& actor) {
  auto path = kj::str("/proc/", actor.child().pid(), "/ns/mnt");
  return kj::AutoCloseFd(open(path.cStr(), O_RDONLY | O_CLOEXEC));
}

}  // namespace

void Supervisor::wantSpare(Ward& ward) {
  bool isWanted = ward.succession.policy().spares > 0 && ward.succession.mayStandBeside();
  if (!isWanted || ward.device.spare != nullptr) return;
  // A host that has no place for another process may say so at once.
  ward.preparing =
      kj::evalNow([&]() { return keepSpare(ward); }).eagerlyEvaluate([](kj::Exception&& failure) {
        KJ_LOG(ERROR, "there will be no spare process", failure);
      });
}

// After an exchange of processes, once the one that serves has got a CPU for itself.
kj::Promise<void> Supervisor::tidyUp(Ward& ward) {
  return timer().afterDelay(SPARE_REST).then([this, &ward]() -> kj::Promise<void> {
    if (ward.isEarly) return tidyUp(ward);  // the one before has not ended in full
    ward.ended = nullptr;
    ward.endedBuild = nullptr;
    ward.endedMounts = nullptr;
    wantSpare(ward);
    return kj::READY_NOW;
  });
}

// Makes one, and another one when that has ended.
kj::Promise<void> Supervisor::keepSpare(Ward& ward) {
  if (ward.device.helper != nullptr) ward.spareHelperEnd = makeHelperEnd(ward);
  auto& spare = ward.device.spare.emplace(
      ward.succession.launch(ground.io, ground.launcher, ward.device.witness));
  auto& actor = *spare.actor;
  return prepare(ward, actor, kj::mv(spare.brokerEnd), /*isBeside=*/true)
      .then([&ward, &actor](kj::Maybe<uint32_t> process) -> kj::Promise<void> {
        ward.spareIsReady(KJ_REQUIRE_NONNULL(process, "it ended"));
        if (!ward.device.actor->isEnding()) ward.mounts = mountsOf(*ward.device.actor);
        return actor.onExit().ignoreResult();
      })
      .catch_([](kj::Exception&&) {})
      .then([this, &ward]() {
        ward.isSpareReady = false;
        ground.inspection.forget(*KJ_ASSERT_NONNULL(ward.device.spare).actor);
        ward.device.spare = nullptr;
        auto pause = ward.spareFailures.failed(timer().now());
        return timer().afterDelay(pause).then([this, &ward]() { return keepSpare(ward); });
      });
}

// Also one by its user's wish, who is told.
void Supervisor::dropSpare(Ward& ward) {
  ward.preparing = nullptr;
  ward.isSpareReady = false;
  endExchange(ward, "it died meanwhile, and is replaced for that");
  KJ_IF_MAYBE (spare, ward.device.spare) {
    ground.inspection.forget(*spare->actor);
  }
  ward.device.spare = nullptr;
}

void Supervisor::endExchange(Ward& ward, kj::StringPtr why) {
  ward.nextBuild = nullptr;
  KJ_IF_MAYBE (told, ward.exchange) {
    (*told)->reject(notExchanged(*ward.device.actor, why));
    ward.exchange = nullptr;
  }
}

void Supervisor::startNext(Ward& ward, Succession::Change change) {
  auto& build = *ward.nextBuild.emplace(ward.succession.changed(kj::mv(change)));
  if (ward.device.helper != nullptr) ward.spareHelperEnd = makeHelperEnd(ward);
  ward.device.spare.emplace(
      ward.succession.launch(ground.io, ground.launcher, build, ward.device.witness));
}

kj::Promise<void> Supervisor::exchange(uint16_t device, Succession::Change change) {
  for (auto& one : wards) {
    auto& ward = *one;
    if (ward.index != device) continue;
    KJ_REQUIRE(ward.device.actor.get() != nullptr, "the VM is ending");
    bool isBusy =
        !ward.isServing || ward.exchange != nullptr || ward.device.actor->waitStatus() != nullptr;
    if (isBusy) return notExchanged(*ward.device.actor, "it is being replaced already, or is down");
    dropSpare(ward);
    KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { startNext(ward, kj::mv(change)); })) {
      ward.nextBuild = nullptr;
      wantSpare(ward);
      return notStarted(*ward.device.actor, *failure);
    }
    auto& next = KJ_ASSERT_NONNULL(ward.device.spare);
    auto paf = kj::newPromiseAndFulfiller<void>();
    ward.exchange = kj::mv(paf.fulfiller);
    auto& actor = *next.actor;
    ward.preparing =
        prepare(ward, actor, kj::mv(next.brokerEnd), /*isBeside=*/true)
            .then([this, &ward, &actor](kj::Maybe<uint32_t> process) mutable -> kj::Promise<void> {
              KJ_IF_MAYBE (number, process) {
                ward.spareIsReady(*number);
                return handOver(ward);
              }
              return didNotBegin(*ward.device.actor, actor, nullptr);
            })
            .catch_([this, &ward, &actor](kj::Exception&& failure) {
              if (ward.exchange == nullptr) return;  // told already
              auto reason = ward.isSpareReady ? kj::mv(failure)
                                              : didNotBegin(*ward.device.actor, actor, failure);
              auto told = kj::mv(KJ_ASSERT_NONNULL(ward.exchange));
              ward.exchange = nullptr;
              told->reject(kj::mv(reason));
              // Not from inside of the promise that it ends.
              ward.clearing = kj::evalLater([this, &ward]() {
                                dropSpare(ward);
                                wantSpare(ward);
                              }).eagerlyEvaluate(nullptr);
            })
            .eagerlyEvaluate(nullptr);
    return kj::mv(paf.promise);
  }
  KJ_FAIL_REQUIRE("this device has no successors", device);
}

// Once the process that serves has let go it ends, and watch() lets the new one take its place.
kj::Promise<void> Supervisor::handOver(Ward& ward) {
  ward.isHandingOver = true;
  auto request = broker.handOverRequest();
  request.setDevice(ward.index);
  auto& actor = *ward.device.actor;
  return request.send().ignoreResult().then(
      [this, &ward, &actor]() {
        if (!ward.isHandingOver) return;  // and has ended meanwhile
        ward.hasHandedOver = true;
        ward.ending = timer()
                          .afterDelay(LAST_WORDS)
                          .then([&actor]() { actor.child().kill(); })
                          .eagerlyEvaluate(nullptr);
      },
      [&ward, &actor](kj::Exception&& failure) {
        if (!ward.isHandingOver) return;
        ward.isHandingOver = false;
        kj::throwFatalException(
            wrapActorError(failure, codes::NOT_EXCHANGED,
                           kj::str(actor.describe(), " did not hand over to the new process"))
                .toException());
      });
}

}  // namespace troupe
