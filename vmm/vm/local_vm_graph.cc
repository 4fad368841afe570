// What a VM's processes hold, as of now, beside what they were given.

#include <unistd.h>

#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_DIFFERENCE = 400;

// "524288 KiB of the guest's, read and write", as attestation says it.
kj::String memoryOf(const sandbox::Attestation& seen) {
  for (auto& one : seen.observations) {
    if (one.layer == "memory") return escape(one.found, LONGEST_DIFFERENCE);
  }
  return kj::str("not known");
}

}  // namespace

void LocalVm::describeGraph(VmGraph::Builder graph) {
  graph.setName(place->name());
  graph.setState(state());
  graph.setJail(stage.onlyReports                 ? "only reports"
                : stage.jail == sandbox::Jail::ON ? "on"
                                                  : "off");
  graph.setPid(getpid());

  auto when = guest == nullptr ? sandbox::Stage::START : sandbox::Stage::RUN;
  auto actors = everyActor();
  kj::Vector<GraphSubject> subjects(actors.size());
  kj::Vector<kj::String> jails;
  kj::Vector<GraphTransit> transits;
  for (auto actor : actors) {
    KJ_IF_MAYBE (transit, transitOf(*actor)) {
      transits.add(GraphTransit{actor->name(), actor->kind(), actor->profile().source, *transit});
      continue;
    }
    auto seen = inspection.look(*actor, when);
    pid_t pid = actor->child().pid();
    subjects.add(GraphSubject{actor->name(), actor->kind(), pid, &actor->profile(),
                              inspection.stageOf(*actor), memoryOf(seen), actor->handed(),
                              sandbox::viewFds(actor->profile(), pid), kj::mv(seen.hostMemory)});
    if (stage.jail == sandbox::Jail::OFF) continue;
    // Those about fds are told better below.
    for (auto& difference : seen.differences) {
      if (difference.startsWith("its fd ")) continue;
      jails.add(kj::str(actor->name(),
                        " differs from its profile: ", escape(difference, LONGEST_DIFFERENCE)));
    }
  }
  compareGraph(subjects, transits, graphPlan(), jails, graph);
  for (auto process : graph.getProcesses()) {
    if (process.asReader().getName() == "serial") process.setRestarts(company.serialRestarts);
    for (auto& device : company.devices) {
      bool isIt = device.actor.get() != nullptr && device.actor->name() == process.getName();
      if (isIt) process.setRestarts(device.restarts);
    }
  }
}

GraphPlan LocalVm::graphPlan() {
  auto devices = KJ_MAP(device, company.devices) {
    // One whose successor could not be launched is on its way to end the VM.
    auto name = device.actor.get() == nullptr ? nullptr : device.actor->name();
    kj::StringPtr spare;
    KJ_IF_MAYBE (member, device.spare) {
      spare = member->brokerObject;
    }
    bool isMoving = device.actor.get() == nullptr || transitOf(*device.actor) != nullptr;
    return GraphPlan::Device{name, device.brokerObject, spare, isMoving};
  };
  kj::Vector<kj::String> bootFiles;
  bootFiles.add(sandbox::objectOf(files.kernel.fd));
  KJ_IF_MAYBE (initrd, files.initrd) {
    bootFiles.add(sandbox::objectOf(initrd->fd));
  }
  bool isBooting = true;
  KJ_IF_MAYBE (course, guest) {
    isBooting = (*course)->isRebooting();
  }
  return GraphPlan{kj::mv(devices), bootFiles.releaseAsArray(), isBooting};
}

}  // namespace troupe
