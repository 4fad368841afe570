// What a VM's processes use and its queues have done, as seen from outside.

#include <unistd.h>

#include "devices/virtio/spin.h"
#include "vmm/observe/process_load.h"
#include "vmm/vm/local_vm.h"

namespace troupe {

namespace {

void describeActor(Actor& actor, ProcessLoad::Builder load) {
  load.setName(actor.name());
  load.setKind(actor.kind());
  // The number of one that has ended may be somebody else's.
  if (actor.waitStatus() == nullptr) describeUse(actor.child().pid(), load);
  KJ_IF_MAYBE (group, actor.group()) {
    describeLimits(*group, load);
  }
}

}  // namespace

void LocalVm::describeLoad(VmLoad::Builder load) {
  load.setName(place->name());
  load.setState(state());
  load.setUptimeMs((io.provider->getTimer().now() - startedAt) / kj::MILLISECONDS);
  load.setMonotonicNs(virtio::monotonicNs());
  load.setCpus(plan.cpus);
  load.setMemoryBytes(plan.memoryBytes);
  load.setLastEvent(log.last());
  KJ_IF_MAYBE (course, guest) {
    load.setReboots((*course)->reboots());
  }

  auto actors = everyActor();
  auto list = load.initProcesses(1 + actors.size());
  list[0].setName("troupe");
  list[0].setKind("troupe");
  describeUse(getpid(), list[0]);
  for (kj::uint i = 0; i < actors.size(); i++) {
    auto one = list[1 + i];
    describeActor(*actors[i], one);
    if (actors[i] == company.serial.get()) one.setRestarts(company.serialRestarts);
    if (actors[i] == company.broker.get()) describeVcpus(actors[i]->child().pid(), one);
  }
  for (auto& device : company.devices) {
    for (kj::uint i = 0; i < actors.size(); i++) {
      if (device.actor.get() != actors[i]) continue;
      list[1 + i].setRestarts(device.restarts);
      list[1 + i].setIsDown(device.isDown);
      KJ_IF_MAYBE (counters, device.counters) {
        describeQueues((*counters)->read(), list[1 + i]);
      }
    }
  }
}

}  // namespace troupe
