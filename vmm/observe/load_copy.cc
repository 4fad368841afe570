#include "vmm/observe/load_copy.h"

#include "devices/virtio/queue_counters.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

constexpr kj::uint MOST_PROCESSES = 64;
constexpr kj::uint MOST_QUEUES = virtio::CounterPage::QUEUES;
constexpr kj::uint MOST_WAITS = virtio::CounterSlot::WAITS;
constexpr kj::uint MOST_THREADS = 255;
constexpr kj::uint MOST_LIMITS = 8;

void copyQueue(QueueLoad::Reader from, QueueLoad::Builder to) {
  to.setIndex(from.getIndex());
  to.setRequests(from.getRequests());
  to.setFromGuestBytes(from.getFromGuestBytes());
  to.setToGuestBytes(from.getToGuestBytes());
  to.setErrors(from.getErrors());
  to.setInFlight(from.getInFlight());
  to.setWaitNs(from.getWaitNs());
  auto waits = to.initWaits(kj::min(from.getWaits().size(), MOST_WAITS));
  for (kj::uint i = 0; i < waits.size(); i++)
    waits.set(i, from.getWaits()[i]);
}

void copyProcess(ProcessLoad::Reader from, ProcessLoad::Builder to) {
  to.setName(escape(from.getName(), 40));
  to.setKind(escape(from.getKind(), 20));
  to.setPid(from.getPid());
  to.setCpuNs(from.getCpuNs());
  to.setPrivateBytes(from.getPrivateBytes());
  to.setSharedBytes(from.getSharedBytes());
  to.setRestarts(from.getRestarts());
  to.setIsDown(from.getIsDown());
  auto queues = to.initQueues(kj::min(from.getQueues().size(), MOST_QUEUES));
  for (kj::uint i = 0; i < queues.size(); i++)
    copyQueue(from.getQueues()[i], queues[i]);
  auto threads = to.initThreads(kj::min(from.getThreads().size(), MOST_THREADS));
  for (kj::uint i = 0; i < threads.size(); i++) {
    threads[i].setName(escape(from.getThreads()[i].getName(), 20));
    threads[i].setCpuNs(from.getThreads()[i].getCpuNs());
  }
  auto limits = to.initLimits(kj::min(from.getLimits().size(), MOST_LIMITS));
  for (kj::uint i = 0; i < limits.size(); i++) {
    limits[i].setName(escape(from.getLimits()[i].getName(), 20));
    limits[i].setUsed(from.getLimits()[i].getUsed());
    limits[i].setAllowed(from.getLimits()[i].getAllowed());
  }
}

}  // namespace

void copyLoad(VmLoad::Reader from, VmLoad::Builder to) {
  to.setName(escape(from.getName(), 64));
  to.setState(escape(from.getState(), 20));
  to.setUptimeMs(from.getUptimeMs());
  to.setMonotonicNs(from.getMonotonicNs());
  to.setCpus(from.getCpus());
  to.setMemoryBytes(from.getMemoryBytes());
  to.setReboots(from.getReboots());
  to.setLastEvent(from.getLastEvent());
  auto processes = to.initProcesses(kj::min(from.getProcesses().size(), MOST_PROCESSES));
  for (kj::uint i = 0; i < processes.size(); i++)
    copyProcess(from.getProcesses()[i], processes[i]);
}

}  // namespace troupe
