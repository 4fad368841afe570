#include "vmm/vm/local_vm.h"

#include <kj/debug.h>

#include "vmm/supervise/blame.h"
#include "vmm/vm/verdict.h"

namespace troupe {

namespace {

bool isGuestsOwnEnd(EndReason reason) {
  return reason == EndReason::POWERED_OFF || reason == EndReason::RESET ||
         reason == EndReason::CRASHED || reason == EndReason::PANICKED;
}

// What of it nobody has touched yet counts as the broker's when its guest does.
uint64_t hostMemoryBytes(const VmFiles& files) {
  uint64_t bytes = 0;
  for (auto& file : files.hostMemory)
    bytes += file.size;
  return bytes;
}

}  // namespace

LocalVm::LocalVm(Starter, kj::AsyncIoContext& io, Stage& stage, VmStart start)
    : io(io),
      startedAt(io.provider->getTimer().now()),
      stage(stage),
      plan(kj::mv(start.plan)),
      files(kj::mv(start.files)),
      startNotes(kj::mv(start.notes)),
      neighbours(kj::mv(start.neighbours)),
      place(start.place.get() == nullptr ? kj::heap<VmPlace>(plan.name) : kj::mv(start.place)),
      begin(start.begin),
      groups(place->name(),
             stage.jail == sandbox::Jail::ON ? controllersOf(plan, stage.profiles) : 0,
             plan.memoryBytes + hostMemoryBytes(files)),
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
      files.metrics.map([](kj::Own<ListeningSocket>& one) { return one->fd(); }), control.client(),
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

kj::Promise<void> LocalVm::anyDeath() {
  kj::Promise<void> any = kj::NEVER_DONE;
  company.forEach([&](Actor& actor) {
    if (!isSupervised(actor)) any = any.exclusiveJoin(actor.onExit().ignoreResult());
  });
  KJ_IF_MAYBE (one, supervisor) {
    any = any.exclusiveJoin((*one)->onAbandoned());
  }
  KJ_IF_MAYBE (one, serialKeeper) {
    any = any.exclusiveJoin((*one)->onAbandoned());
  }
  return any;
}

bool LocalVm::isSupervised(Actor& actor) const {
  if (actor.kind() == "recorder") return true;  // it is missed by nobody
  if (supervisor == nullptr) return false;
  if (company.serial.get() == &actor) return serialKeeper != nullptr;
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
      [this](Actor& actor, AfterDeath next, kj::StringPtr cause) {
        notebook.died(actor, next, cause);
      },
      [this](kj::StringPtr device, kj::StringPtr detail) { notebook.putAside(device, detail); },
      // Calls that are reported make actors slow beyond any measure.
      [this]() { return !stage.onlyReports && !KJ_ASSERT_NONNULL(guest)->isPaused(); });
  serialKeeper = kj::heap<SerialKeeper>(
      io, inspection, company, [this](Actor& actor) { notebook.died(actor, AfterDeath::REPLACED); },
      [this](Actor& actor) { notebook.replaced(actor, company.serialRestarts); });
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

}  // namespace troupe
