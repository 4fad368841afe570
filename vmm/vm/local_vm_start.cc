// How a VM starts: what its broker is asked for, who is attested, and what became of a start that
// failed.

#include <kj/debug.h>

#include "protos/fd_handle.h"
#include "vmm/actors/memory_grant.h"
#include "vmm/supervise/blame.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// Resolves when all have; fails as soon as one does.
kj::Promise<void> allOrFirstFailure(kj::Vector<kj::Promise<void>> promises) {
  auto failure = kj::newPromiseAndFulfiller<void>();
  auto* reject = failure.fulfiller.get();
  auto watched = KJ_MAP(promise, promises) {
    return promise.catch_([reject](kj::Exception&& exception) {
      reject->reject(kj::cp(exception));
      kj::throwFatalException(kj::mv(exception));
    });
  };
  return kj::joinPromises(kj::mv(watched))
      .exclusiveJoin(kj::mv(failure.promise))
      .attach(kj::mv(failure.fulfiller));
}

Handle::Client handleTo(kj::AutoCloseFd fd) {
  return kj::heap<FdHandle>(kj::mv(fd));
}

}  // namespace

kj::Promise<void> LocalVm::start() {
  auto deadline = io.provider->getTimer().afterDelay(stage.startDeadline).then([this]() {
    UserError error(codes::START_TIMEOUT, kj::str("the VM did not start within ",
                                                  stage.startDeadline / kj::SECONDS, " s"));
    for (auto& open : openSteps)
      error.cause(kj::str("still waiting: ", open));
    error.raise();
  });
  auto death =
      anyDeath()
          .then([this]() { return io.provider->getTimer().afterDelay(CAUSE_WAIT); })
          .then([]() {
            // explainFailure() finds out which and why.
            kj::throwFatalException(kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__,
                                                  __LINE__, kj::str("an actor has died")));
          });
  return askBroker()
      .exclusiveJoin(kj::mv(deadline))
      .exclusiveJoin(kj::mv(death))
      .catch_([this](kj::Exception&& failure) { return explainFailure(kj::mv(failure)); })
      .then([this]() {
        kj::Vector<kj::Promise<void>> all;
        all.add(inspection.attest(*company.broker));
        all.add(inspection.attestWhenReady(*company.serial));
        for (auto& helper : company.helpers)
          all.add(inspection.attestHelper(*helper));
        for (auto& recorder : company.recorders)
          all.add(inspection.attestWhenReady(*recorder.actor));
        // One that ends now, as it cannot listen where it is to, will never be ready.
        return kj::joinPromises(all.releaseAsArray())
            .exclusiveJoin(anyDeath().then(
                []() -> kj::Promise<void> { KJ_FAIL_REQUIRE("an actor has died"); }))
            .catch_([this](kj::Exception&& failure) { return explainFailure(kj::mv(failure)); });
      })
      .then([this]() {
        attested = stage.jail == sandbox::Jail::ON;
        return letGo().catch_(
            [this](kj::Exception&& failure) { return explainFailure(kj::mv(failure)); });
      })
      .then([this]() -> kj::Promise<void> {
        auto& course = *guest.emplace(kj::heap<GuestCourse>(
            io.provider->getTimer(), KJ_ASSERT_NONNULL(broker), place->name(), plan.onReboot,
            [this](GuestCourse::RebootRequest& request) { handBootFiles(request); },
            stage.startDeadline, notebook));
        running = true;
        files.keepMade();
        notebook.started();
        if (begin == Begin::RUNNING) return kj::READY_NOW;
        // As it is already: so that everybody knows. A broker that is gone is noticed elsewhere.
        return course.pause().catch_([](kj::Exception&&) {});
      })
      .then([this]() {
        beginning.fulfiller->fulfill();
        company.forEach([](Actor& actor) { actor.log().live(); });
      });
}

// Of two calls that are sent together the first is done first.
kj::Promise<void> LocalVm::letGo() {
  auto& client = KJ_ASSERT_NONNULL(broker);
  auto held = begin == Begin::PAUSED ? client.pauseRequest().send().ignoreResult()
                                     : kj::Promise<void>(kj::READY_NOW);
  auto begun = client.runRequest().send().ignoreResult();
  return held.then([begun = kj::mv(begun)]() mutable { return kj::mv(begun); });
}

template <typename Request>
kj::Promise<void> LocalVm::step(kj::String description, Request&& request) {
  openSteps.add(kj::heapString(description));
  auto done = request.send().ignoreResult();
  return done.then(
      [this, name = kj::heapString(description)]() {
        for (auto& open : openSteps) {
          if (open != name) continue;
          open = kj::mv(openSteps.back());
          openSteps.removeLast();
          return;
        }
      },
      [what = kj::mv(description)](kj::Exception&& exception) {
        kj::throwFatalException(
            wrapActorError(exception, codes::START_REFUSED, kj::str(what, " failed"))
                .toException(exception.getType()));
      });
}

kj::Promise<void> LocalVm::askBroker() {
  auto& pipe = *link.emplace(kj::heap<BrokerLink>(io, kj::mv(company.brokerPipe)));
  auto& client = broker.emplace(pipe.broker());
  kj::Vector<kj::Promise<void>> steps;
  company.forEach([&](Actor& actor) { steps.add(actor.started()); });

  // All at once: each waits in the broker for those before it, none on the wire.
  auto create = client.createRequest();
  auto machine = create.initConfig();
  machine.setCpus(plan.cpus);
  machine.setMemoryBytes(plan.memoryBytes);
  auto regions = machine.initRegions(kj::uint(plan.placedRam.size()));
  for (auto i : kj::indices(plan.placedRam)) {
    regions[i].setGuestAddress(plan.placedRam[i].guestAddress);
    regions[i].setSize(plan.placedRam[i].size);
  }
  auto hostMemory = machine.initHostMemory(kj::uint(files.hostMemory.size()));
  for (auto i : kj::indices(files.hostMemory)) {
    hostMemory[i].setGuestAddress(files.hostMemory[i].guestAddress);
    hostMemory[i].setSize(files.hostMemory[i].size);
    hostMemory[i].setFileOffset(files.hostMemory[i].offset);
  }
  machine.setHasSerial(true);
  machine.setDeviceCount(static_cast<uint16_t>(company.devices.size()));
  auto mask = machine.initCpuMask(plan.cpuMask.size());
  for (kj::uint i = 0; i < plan.cpuMask.size(); i++)
    mask.set(i, plan.cpuMask[i]);
  steps.add(step(
      kj::str("making a VM with ", plan.cpus, " CPU(s) and ", sizeText(plan.memoryBytes)), create));

  for (auto& device : company.devices) {
    auto add = client.addDeviceRequest();
    add.setName(device.actor->name());
    add.setPipe(handleTo(kj::mv(device.brokerEnd)));
    writeGrant(device.actor->profile().layers.memory, add.initMemory());
    add.setMayGiveBack(device.mayGiveBack);
    add.setIsReplaced(device.succession != nullptr);
    // A device that is ready is looked at while others still start.
    steps.add(step(kj::str("adding ", device.actor->describe()), add)
                  .then([this, &actor = *device.actor]() { return inspection.attest(actor); }));
  }

  auto load = client.loadRequest();
  describeBoot(load.initFiles());
  auto what = kj::str("loading kernel ", quote(plan.kernel));
  KJ_IF_MAYBE (path, plan.initrd) {
    what = kj::str(what, " with initrd ", quote(*path));
  }
  steps.add(step(kj::mv(what), load));
  steps.add(step(kj::str("preparing the VM"), client.prepareRequest()));
  return allOrFirstFailure(kj::mv(steps));
}

kj::Promise<void> LocalVm::explainFailure(kj::Exception&& failure) {
  // When a jail could not be closed, or an actor met its death, that is the reason, whatever broke
  // because of it; else it is what the broker said. An actor that ended quietly lost its pipe.
  auto& timer = io.provider->getTimer();
  return anyDeath()
      .exclusiveJoin(timer.afterDelay(CAUSE_WAIT))
      .then([this, &timer]() -> kj::Promise<void> {
        KJ_IF_MAYBE (actor, firstToBlame(company)) {
          // Whoever closed the pipe of one that ended quietly may be noticed after it.
          bool quiet = blame(KJ_ASSERT_NONNULL(actor->waitStatus())) == 0;
          if (quiet) return timer.afterDelay(CAUSE_WAIT);
          return actor->log().onEnd().exclusiveJoin(timer.afterDelay(CAUSE_WAIT));
        }
        return kj::READY_NOW;
      })
      .then([this, failure = kj::mv(failure)]() mutable {
        company.forEach([](Actor& actor) {
          KJ_IF_MAYBE (exception, actor.startFailure()) {
            kj::throwFatalException(kj::cp(*exception));
          }
        });
        KJ_IF_MAYBE (actor, firstToBlame(company)) {
          int status = KJ_ASSERT_NONNULL(actor->waitStatus());
          bool brokerExplains = failure.getType() != kj::Exception::Type::DISCONNECTED;
          if (blame(status) == 0 && brokerExplains) kj::throwFatalException(kj::mv(failure));
          diedAtStart(*actor, status).raise();
        }
        kj::throwFatalException(kj::mv(failure));
      });
}

}  // namespace troupe
