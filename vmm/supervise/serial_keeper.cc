#include "vmm/supervise/serial_keeper.h"

#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>

#include "vmm/actors/child_log.h"
#include "vmm/actors/refusal.h"
#include "vmm/supervise/blame.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

void tellOfDeath(Actor& actor, int status, kj::StringPtr consequence) {
  // Whatever its jail killed is a break-in or a mistake of its profile, and is to be seen.
  KJ_IF_MAYBE (refusal, explainRefusal(actor, kj::str(actor.describe(), " died"))) {
    printError(kj::str("troupe: ", refusal->render(), "\n"));
  }
  printError(
      kj::str("troupe: ", actor.describe(), " ", describeWaitStatus(status), consequence, "\n"));
}

}  // namespace

SerialKeeper::SerialKeeper(kj::AsyncIoContext& io, Inspection& inspection, Company& company,
                           kj::Function<void(Actor&)> died, kj::Function<void(Actor&)> replaced)
    : io(io),
      inspection(inspection),
      company(company),
      died(kj::mv(died)),
      replaced(kj::mv(replaced)),
      abandoned(kj::newPromiseAndFulfiller<void>()),
      abandonment(abandoned.promise.fork()),
      life(watch().eagerlyEvaluate([this](kj::Exception&& failure) {
        printError(kj::str("troupe: ", hostileReason(failure), "\n"));
        abandoned.fulfiller->fulfill();
      })) {}

kj::Promise<void> SerialKeeper::watch() {
  return company.serial->onExit().then([this](int status) -> kj::Promise<void> {
    serves = false;
    inspection.forget(*company.serial);
    // One that ends without a word has lost its socket, because the broker is on its way out.
    bool isOver = userDetached(company) || blame(status) == 0;
    if (!isOver) return succeed(status);
    abandoned.fulfiller->fulfill();
    return kj::READY_NOW;
  });
}

kj::Promise<void> SerialKeeper::succeed(int status) {
  auto& actor = *company.serial;
  bool isOwn = !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  auto fault = isOwn ? Deaths::Fault::OWN : Deaths::Fault::NOBODYS;
  auto& timer = io.provider->getTimer();
  if (!deaths.note(timer.now(), actor.profile().layers.restart, fault)) {
    abandoned.fulfiller->fulfill();
    return kj::READY_NOW;
  }
  tellOfDeath(actor, status, "; another process takes its place");
  died(actor);
  return timer.afterDelay(deaths.pause()).then([this]() { return replace(); });
}

kj::Promise<void> SerialKeeper::replace() {
  company.serial = nullptr;  // its control group has the name that the next one's is to have
  company.serial = company.launchSerial();
  company.serialRestarts++;
  auto& actor = *company.serial;
  // One that dies before it can be looked at, or amid that, is replaced in its turn.
  auto attested =
      inspection.attestWhenReady(actor)
          .then([]() { return true; })
          .catch_([this, &actor](kj::Exception&& failure) {
            return io.provider->getTimer()
                .afterDelay(DEATH_WAIT)
                .then([&actor, failure = kj::mv(failure)]() mutable -> kj::Promise<bool> {
                  if (actor.isEnding()) return kj::NEVER_DONE;
                  kj::throwFatalException(kj::mv(failure));
                });
          });
  auto ended = actor.onExit().then([](int) { return false; });
  return attested.exclusiveJoin(kj::mv(ended)).then([this, &actor](bool isThere) {
    if (isThere) {
      serves = true;
      actor.log().live();
      replaced(actor);
    }
    return watch();
  });
}

}  // namespace troupe
