// How a VM ends: who leaves, in which order, and what is waited for.

#include <kj/debug.h>
#include <sys/wait.h>

#include "vmm/actors/thread_look.h"
#include "vmm/supervise/blame.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

// Whoever reads the events is told the last within this, or does not read.
constexpr kj::Duration READERS_DEADLINE = 1 * kj::SECONDS;
// Within this, everybody has delivered the guest's last output; a reader that takes none loses it.
constexpr kj::Duration LEAVE_DEADLINE = 2 * kj::SECONDS;
// The same for what is recorded and not yet in its file.
constexpr kj::Duration RECORDING_DEADLINE = 10 * kj::SECONDS;
constexpr kj::Duration STOPPED_LOOK = 100 * kj::MILLISECONDS;

}  // namespace

// A death that ends the VM is an event before the end is.
void LocalVm::noteEnd(const VmEnd& end) {
  if (end.exit == ExitCode::DEVICE_LOST || end.exit == ExitCode::BROKER_FAILED) {
    KJ_IF_MAYBE (actor, firstToBlame(company)) {
      notebook.died(*actor, AfterDeath::IS_LOST);
    }
  }
  notebook.ended(end);
}

kj::Promise<void> LocalVm::untilQuietEndIsExplained() {
  KJ_IF_MAYBE (actor, firstToBlame(company)) {
    bool quiet = blame(KJ_ASSERT_NONNULL(actor->waitStatus())) == 0;
    if (quiet && KJ_ASSERT_NONNULL(guest)->outcome().end == nullptr && !userDetached(company) &&
        actor != company.broker.get()) {
      // It lost its pipe, so the broker is on its way out; the kernel takes its time with a VM.
      return company.broker->onExit().ignoreResult().exclusiveJoin(
          io.provider->getTimer().afterDelay(LEAVE_DEADLINE));
    }
  }
  return kj::READY_NOW;
}

kj::Promise<void> LocalVm::letEveryoneLeave() {
  // The broker ends when its pipe closes, the others when the broker has; consoles deliver first.
  // The front end stays until those who read the events have heard of the end.
  auto& timer = io.provider->getTimer();
  auto toldReaders = log.untilNobodyReads()
                         .exclusiveJoin(timer.afterDelay(READERS_DEADLINE))
                         .then([this]() { frontDoor = nullptr; })
                         .eagerlyEvaluate(nullptr);
  pressing = nullptr;
  waiting = nullptr;
  guest = nullptr;
  supervisor = nullptr;
  serialKeeper = nullptr;
  // A helper ends when nobody has the other end of its connection, kept for successors or not.
  for (auto& device : company.devices)
    device.succession = nullptr;
  broker = nullptr;
  link = nullptr;
  auto recorders = kj::mv(company.recorders);
  // Whose calls are reported is slow, and has the guest's last words to deliver all the same.
  bool isWatched = stage.onlyReports || stage.counts;
  kj::Vector<kj::Promise<void>> exits;
  company.forEach([&](Actor& actor) {
    actor.log().mute();
    exits.add(actor.onExit().ignoreResult());
  });
  return kj::joinPromises(exits.releaseAsArray())
      .exclusiveJoin(killStopped())
      .exclusiveJoin(timer.afterDelay(isWatched ? 10 * LEAVE_DEADLINE : LEAVE_DEADLINE))
      .then([toldReaders = kj::mv(toldReaders)]() mutable { return kj::mv(toldReaders); })
      .then([this]() {
        company = Company();  // kills and reaps whoever is left
        return releaseDisks(io.provider->getTimer(), kj::mv(files.disks));
      })
      .then([this]() { terminal = nullptr; })
      .then([this, recorders = kj::mv(recorders)]() mutable {
        return finishRecordings(kj::mv(recorders));
      });
}

// Without one that carries it off, a recording would only take memory.
kj::Promise<void> LocalVm::watchRecorder(size_t index) {
  return company.recorders[index].actor->onExit().then([this, index](int status) {
    auto& recording = files.recordings[index];
    recording.close();
    if (!WIFSIGNALED(status)) return;  // it has said why
    printError(kj::str("troupe: ", codes::RECORD_BROKEN.text, ": the recording of ",
                       recording.device, " ends here, and the VM goes on: its writer ",
                       describeWaitStatus(status), "\n"));
  });
}

// Once nobody records any more. A file that takes nothing is not waited for.
kj::Promise<void> LocalVm::finishRecordings(kj::Vector<Recorder> recorders) {
  if (recorders.size() == 0) return kj::READY_NOW;
  kj::Vector<kj::Promise<void>> exits;
  auto isCutOff = [this](kj::StringPtr why) {
    printError(kj::str("troupe: a recording of the VM ", quote(place->name()),
                       " could not be written to its end", why, "\n"));
  };
  for (auto& recorder : recorders) {
    recorder.control = nullptr;
    exits.add(recorder.actor->onExit().ignoreResult());
    pid_t pid = recorder.actor->child().pid();
    if (recorder.actor->waitStatus() != nullptr || !isStopped(pid)) continue;
    isCutOff(": its writer is stopped");
    recorder.actor->child().kill();
  }
  auto late = io.provider->getTimer().afterDelay(RECORDING_DEADLINE).then([isCutOff]() {
    isCutOff(kj::str(" within ", RECORDING_DEADLINE / kj::SECONDS, " s"));
  });
  return kj::joinPromises(exits.releaseAsArray())
      .exclusiveJoin(kj::mv(late))
      .attach(kj::mv(recorders));
}

// Those that a signal has stopped see no pipe close.
kj::Promise<void> LocalVm::killStopped() {
  company.forEach([](Actor& actor) {
    if (actor.waitStatus() == nullptr && isStopped(actor.child().pid())) actor.child().kill();
  });
  return io.provider->getTimer().afterDelay(STOPPED_LOOK).then([this]() { return killStopped(); });
}

}  // namespace troupe
