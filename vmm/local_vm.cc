#include "vmm/local_vm.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/blame.h"
#include "vmm/control_actor.h"
#include "vmm/disk_growth.h"
#include "vmm/fd_handle.h"
#include "vmm/memory_grant.h"
#include "vmm/number_text.h"
#include "vmm/quote.h"
#include "vmm/thread_look.h"
#include "vmm/user_error.h"
#include "vmm/verdict.h"
#include "vmm/wait_status.h"

namespace troupe {

namespace {

// A death is often seen first through what it breaks. This long we wait for its cause to show.
constexpr kj::Duration CAUSE_WAIT = 100 * kj::MILLISECONDS;
// Whoever reads the events is told the last within this, or does not read.
constexpr kj::Duration READERS_DEADLINE = 1 * kj::SECONDS;
// Within this, everybody has delivered the guest's last output; a reader that takes none loses it.
constexpr kj::Duration LEAVE_DEADLINE = 2 * kj::SECONDS;
// The same for what is recorded and not yet in its file.
constexpr kj::Duration RECORDING_DEADLINE = 10 * kj::SECONDS;
constexpr kj::Duration STOPPED_LOOK = 100 * kj::MILLISECONDS;

bool isGuestsOwnEnd(EndReason reason) {
  return reason == EndReason::POWERED_OFF || reason == EndReason::RESET ||
         reason == EndReason::CRASHED || reason == EndReason::PANICKED;
}

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

LocalVm::LocalVm(kj::AsyncIoContext& io, Stage& stage, VmStart start)
    : io(io),
      startedAt(io.provider->getTimer().now()),
      stage(stage),
      plan(kj::mv(start.plan)),
      files(kj::mv(start.files)),
      startNotes(kj::mv(start.notes)),
      neighbours(kj::mv(start.neighbours)),
      place(start.place.get() == nullptr ? kj::heap<VmPlace>(plan.name) : kj::mv(start.place)),
      groups(place->name(),
             stage.jail == sandbox::Jail::ON ? controllersOf(plan, stage.profiles) : 0,
             plan.memoryBytes),
      inspection(io.provider->getTimer(), stage.jail, files.ram.writable, ramOf(plan)),
      stopRequested(nullptr),
      life(nullptr) {
  bool takesTerminal = plan.serial.kind == Endpoint::Kind::STDIO;
  for (auto& console : plan.consoles)
    takesTerminal = takesTerminal || console.where.kind == Endpoint::Kind::STDIO;
  if (takesTerminal) terminal = kj::heap<GuestTerminal>();
  company = launchCompany(io, launcher, plan, files, stage.programs, stage.profiles);
  files.ram = {};  // the broker has it
  for (size_t i = 0; i < company.recorders.size(); i++)
    recordings.add(watchRecorder(i).eagerlyEvaluate(nullptr));
  KJ_IF_MAYBE (vsock, company.vsock) {
    connectVsock(*vsock);
  }

  auto stopping = kj::newPromiseAndFulfiller<void>();
  stopFulfiller = kj::mv(stopping.fulfiller);
  stopRequested = kj::mv(stopping.promise);
  frontDoor = kj::heap<FrontDoor>(
      io, place->socket(),
      files.metrics.map([](kj::Own<ListeningSocket>& one) { return one->fd(); }),
      kj::heap<ControlActor>(*this, io.provider->getTimer()),
      [this](int pipe) {
        return launchFront(this->io, launcher, this->stage.programs, this->stage.profiles, pipe);
      },
      [this](Actor& front) { return inspection.attest(front); });
  life = live().eagerlyEvaluate(nullptr);
}

// Each process of the socket device has a connector of its own: what the one before had asked is
// nothing to it.
void LocalVm::connectVsock(uint16_t device) {
  auto pipe = kj::mv(company.devices[device].line);
  if (neighbours.get() != nullptr) {
    auto& link = *vsockConnector.emplace(
        kj::heap<VsockConnector>(io, kj::mv(pipe), neighbours->connector()));
    return neighbours->serves(link.device());
  }
  auto socket =
      KJ_ASSERT_NONNULL(plan.vsock).socket.map([](kj::String& path) { return path.asPtr(); });
  vsockConnector = kj::heap<VsockConnector>(io, kj::mv(pipe), socket);
}

kj::Promise<BrokerCounters> LocalVm::counters() {
  KJ_IF_MAYBE (client, broker) {
    return client->countersRequest().send().then([](auto&& response) {
      auto counters = response.getCounters();
      return BrokerCounters{counters.getExits(), counters.getNotifyExits(),
                            counters.getDeviceCalls()};
    });
  }
  KJ_FAIL_REQUIRE("the VM has ended");
}

uint16_t LocalVm::diskNamed(kj::StringPtr id) {
  kj::Vector<kj::StringPtr> ids;
  for (uint16_t i = 0; i < plan.disks.size(); i++) {
    if (plan.disks[i].id == id) return i;
    ids.add(plan.disks[i].id);
  }
  auto which = ids.size() == 0 ? kj::str("; it has none")
                               : kj::str("; its disks are ", kj::strArray(ids, ", "));
  UserError(codes::NO_SUCH_DISK,
            kj::str("VM ", quote(place->name()), " has no disk with the id ", quote(id), which))
      .raise();
}

// The file is grown through the fd that carries the disk's lock.
kj::Promise<uint64_t> LocalVm::resizeDisk(kj::StringPtr id, uint64_t bytes) {
  uint16_t index = diskNamed(id);
  auto& disk = plan.disks[index];
  if (!running || resizing) {
    UserError(codes::VM_DISK_RESIZE, resizing ? kj::str("another resize of a disk is under way")
                                              : kj::str("VM ", quote(place->name()),
                                                        " is not running yet, or not any more"))
        .raise();
  }
  uint64_t size = growDiskFile(disk, files.disks[index].fd, bytes);
  resizing = true;
  auto request = KJ_REQUIRE_NONNULL(broker, "the VM has ended").hostEventRequest();
  request.setDevice(company.firstDisk + index);
  request.initEvent().setDiskSize(size);
  auto over = kj::defer([this]() { resizing = false; });
  return request.send()
      .ignoreResult()
      .attach(kj::mv(over))
      .then(
          [this, &disk, size]() {
            notebook.resized(disk.id, size);
            return size;
          },
          [&disk](kj::Exception&& failure) -> uint64_t {
            kj::throwFatalException(
                wrapActorError(failure, codes::DISK_NOT_GROWN,
                               kj::str("disk ", quote(disk.id), " did not become larger"))
                    .toException());
          });
}

void LocalVm::terminalResized() {
  KJ_IF_MAYBE (device, company.terminalConsole) {
    KJ_IF_MAYBE (client, broker) {
      KJ_IF_MAYBE (size, terminalSize()) {
        auto request = client->hostEventRequest();
        request.setDevice(*device);
        auto cells = request.initEvent().initConsoleSize();
        cells.setColumns(size->columns);
        cells.setRows(size->rows);
        // A console that is not told keeps its old size.
        request.send().ignoreResult().detach([](kj::Exception&&) {});
      }
    }
  }
}

void LocalVm::terminalResumed() {
  KJ_IF_MAYBE (guestTerminal, terminal) {
    (*guestTerminal)->resume();
  }
  terminalResized();
}

kj::Promise<VmEnd> LocalVm::live() {
  auto course = start().then([this]() { return serve(); });
  return course.exclusiveJoin(kj::mv(stopRequested)).then([this]() {
    GuestOutcome unknown;
    auto& outcome = guest == nullptr ? unknown : KJ_ASSERT_NONNULL(guest)->outcome();
    auto end = verdictOn(place->name(), company, outcome, stopReason);
    noteEnd(end);
    auto leaving = letEveryoneLeave();
    return leaving.then([end = kj::mv(end)]() mutable { return kj::mv(end); });
  });
}

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
        auto request = KJ_ASSERT_NONNULL(broker).runRequest();
        return request.send().ignoreResult().catch_(
            [this](kj::Exception&& failure) { return explainFailure(kj::mv(failure)); });
      })
      .then([this]() {
        guest = kj::heap<GuestCourse>(
            io.provider->getTimer(), KJ_ASSERT_NONNULL(broker), place->name(), plan.onReboot,
            [this](GuestCourse::RebootRequest& request) { handBootFiles(request); },
            stage.startDeadline, notebook);
        running = true;
        notebook.started();
        beginning.fulfiller->fulfill();
        company.forEach([](Actor& actor) { actor.log().live(); });
      });
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

kj::Promise<void> LocalVm::anyDeath() {
  kj::Promise<void> any = kj::NEVER_DONE;
  company.forEach([&](Actor& actor) {
    if (!isSupervised(actor)) any = any.exclusiveJoin(actor.onExit().ignoreResult());
  });
  KJ_IF_MAYBE (one, supervisor) {
    any = any.exclusiveJoin((*one)->onAbandoned());
  }
  return any;
}

bool LocalVm::isSupervised(Actor& actor) const {
  if (actor.kind() == "recorder") return true;  // it is missed by nobody
  if (supervisor == nullptr) return false;
  for (auto& device : company.devices) {
    bool isIts = device.actor.get() == &actor;
    KJ_IF_MAYBE (spare, device.spare) {
      isIts = isIts || spare->actor.get() == &actor;
    }
    KJ_IF_MAYBE (helper, device.helper) {
      isIts = isIts || company.helpers[helper->index].get() == &actor;
    }
    if (isIts) return device.succession != nullptr;
  }
  return false;
}

void LocalVm::supervise() {
  supervisor = kj::heap<Supervisor>(
      Supervisor::Ground{io, launcher, inspection, company, place->name()},
      KJ_ASSERT_NONNULL(broker),
      [this](uint16_t device) {
        if (company.terminalConsole == device) terminalResized();
        if (company.vsock == device) connectVsock(device);
        bool isNet = device >= company.firstNet && device < company.firstNet + plan.nets.size();
        if (isNet) tellNetAgain(device);
        auto& one = company.devices[device];
        notebook.replaced(*one.actor, one.restarts);
      },
      [this](Actor& actor, bool isReplaced) { notebook.died(actor, isReplaced); },
      // Calls that are reported make actors slow beyond any measure.
      [this]() { return !stage.onlyReports && !KJ_ASSERT_NONNULL(guest)->isPaused(); });
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

kj::Promise<void> LocalVm::serve() {
  supervise();
  return KJ_ASSERT_NONNULL(guest)
      ->untilEnd()
      .catch_([](kj::Exception&&) {})  // the pipe broke: the deaths tell why
      .exclusiveJoin(anyDeath())
      .then([this]() -> kj::Promise<void> {
        KJ_IF_MAYBE (end, KJ_ASSERT_NONNULL(guest)->outcome().end) {
          if (isGuestsOwnEnd(end->reason)) return kj::READY_NOW;
        }
        if (userDetached(company)) return kj::READY_NOW;
        return io.provider->getTimer().afterDelay(CAUSE_WAIT);
      })
      .then([this]() { return untilQuietEndIsExplained(); });
}

// A death that ends the VM is an event before the end is.
void LocalVm::noteEnd(const VmEnd& end) {
  if (end.exit == ExitCode::DEVICE_LOST || end.exit == ExitCode::BROKER_FAILED) {
    KJ_IF_MAYBE (actor, firstToBlame(company)) {
      notebook.died(*actor, false);
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
  broker = nullptr;
  link = nullptr;
  auto recorders = kj::mv(company.recorders);
  kj::Vector<kj::Promise<void>> exits;
  company.forEach([&](Actor& actor) {
    actor.log().mute();
    exits.add(actor.onExit().ignoreResult());
  });
  return kj::joinPromises(exits.releaseAsArray())
      .exclusiveJoin(killStopped())
      .exclusiveJoin(timer.afterDelay(LEAVE_DEADLINE))
      .then([toldReaders = kj::mv(toldReaders)]() mutable { return kj::mv(toldReaders); })
      .then([this]() {
        company = Company();  // kills and reaps whoever is left
        releaseDisks(kj::mv(files.disks));
        terminal = nullptr;
      })
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
  for (auto& recorder : recorders) {
    recorder.control = nullptr;
    exits.add(recorder.actor->onExit().ignoreResult());
  }
  auto late = io.provider->getTimer().afterDelay(RECORDING_DEADLINE).then([this]() {
    printError(kj::str("troupe: a recording of the VM ", quote(place->name()),
                       " could not be written to its end within ", RECORDING_DEADLINE / kj::SECONDS,
                       " s\n"));
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
