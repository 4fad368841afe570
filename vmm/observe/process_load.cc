#include "vmm/observe/process_load.h"

#include <dirent.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>

#include "sandbox/limits/small_file.h"

namespace troupe {

namespace {

constexpr uint64_t SECOND_NS = 1000000000;
constexpr uint64_t SECOND_US = 1000000;

// The clock of the CPU time of a process and all its threads: what clock_getcpuclockid() makes, and
// unlike that it needs no permission to look.
clockid_t cpuClockOf(pid_t pid) {
  constexpr clockid_t SCHEDULED = 2;
  return static_cast<clockid_t>(~static_cast<unsigned>(pid) << 3) | SCHEDULED;
}

uint64_t cpuNsOf(pid_t pid) {
  timespec used;
  if (clock_gettime(cpuClockOf(pid), &used) != 0) return 0;
  return uint64_t(used.tv_sec) * SECOND_NS + uint64_t(used.tv_nsec);
}

// "RssAnon:\t     312 kB"
uint64_t kibibytesAfter(kj::StringPtr text, kj::StringPtr key) {
  const char* at = strstr(text.cStr(), key.cStr());
  return at == nullptr ? 0 : strtoull(at + key.size(), nullptr, 10) << 10;
}

kj::String readOr(kj::StringPtr path, kj::StringPtr otherwise) {
  KJ_IF_MAYBE (text, sandbox::readSmallFile(path)) {
    return kj::mv(*text);
  }
  return kj::heapString(otherwise);
}

struct Vcpu {
  unsigned long number;
  uint64_t cpuNs;
};

// None when the thread is no vCPU, or gone.
kj::Maybe<Vcpu> vcpuAt(kj::StringPtr folder) {
  auto name = readOr(kj::str(folder, "/comm"), "");
  if (!name.startsWith("vp-")) return nullptr;
  char* end;
  unsigned long number = strtoul(name.cStr() + strlen("vp-"), &end, 10);
  if (end == name.cStr() + strlen("vp-") || *end != '\n' || number >= MOST_VCPUS) return nullptr;
  // "time on a CPU, time waited for one, turns", in nanoseconds.
  auto times = readOr(kj::str(folder, "/schedstat"), "0");
  return Vcpu{number, strtoull(times.cStr(), nullptr, 10)};
}

kj::Vector<kj::String> threadsOf(pid_t pid) {
  constexpr size_t MOST_THREADS = 4 * MOST_VCPUS;
  kj::Vector<kj::String> threads;
  auto folder = kj::str("/proc/", pid, "/task");
  DIR* list = opendir(folder.cStr());
  if (list == nullptr) return threads;
  KJ_DEFER(closedir(list));
  while (dirent* entry = readdir(list)) {
    if (entry->d_name[0] == '.' || threads.size() == MOST_THREADS) continue;
    threads.add(kj::str(folder, "/", entry->d_name));
  }
  return threads;
}

struct Use {
  kj::StringPtr name;
  uint64_t used;
  uint64_t allowed;
};

// None of a limit whose use is no single number.
kj::Maybe<Use> useOf(const sandbox::ActorCgroup& group, const sandbox::CgroupSetting& setting,
                     uint64_t cpuNs) {
  if (!setting.limit.endsWith("_max") || setting.limit == "swap_max") return nullptr;
  const char* value = setting.value.cStr();
  char* end;
  uint64_t allowed = strtoull(value, &end, 10);
  if (end == value) return nullptr;
  if (setting.file == "cpu.max") {
    uint64_t period = strtoull(end, nullptr, 10);
    if (period == 0) period = SECOND_US / 10;
    return Use{setting.limit, cpuNs, allowed * SECOND_NS / period};
  }
  kj::StringPtr current = setting.file == "memory.max" ? "memory.current"_kj
                          : setting.file == "pids.max" ? "pids.current"_kj
                                                       : ""_kj;
  if (current.size() == 0) return nullptr;
  auto used = readOr(kj::str(group.path(), "/", current), "0");
  return Use{setting.limit, strtoull(used.cStr(), nullptr, 10), allowed};
}

}  // namespace

void describeUse(pid_t pid, ProcessLoad::Builder load) {
  load.setPid(pid);
  load.setCpuNs(cpuNsOf(pid));
  auto status = readOr(kj::str("/proc/", pid, "/status"), "");
  load.setPrivateBytes(kibibytesAfter(status, "\nRssAnon:"));
  load.setSharedBytes(kibibytesAfter(status, "\nRssShmem:"));
}

void describeVcpus(pid_t pid, ProcessLoad::Builder load) {
  kj::Vector<Vcpu> vcpus;
  for (auto& thread : threadsOf(pid)) {
    KJ_IF_MAYBE (vcpu, vcpuAt(thread)) {
      if (vcpus.size() < MOST_VCPUS) vcpus.add(*vcpu);
    }
  }
  std::sort(vcpus.begin(), vcpus.end(),
            [](const Vcpu& one, const Vcpu& other) { return one.number < other.number; });
  auto list = load.initThreads(vcpus.size());
  for (kj::uint i = 0; i < list.size(); i++) {
    list[i].setName(kj::str("vp-", vcpus[i].number));
    list[i].setCpuNs(vcpus[i].cpuNs);
  }
}

void describeLimits(const sandbox::ActorCgroup& group, ProcessLoad::Builder load) {
  kj::Vector<Use> uses;
  for (auto& setting : group.inForce()) {
    KJ_IF_MAYBE (use, useOf(group, setting, load.getCpuNs())) {
      uses.add(*use);
    }
  }
  auto list = load.initLimits(uses.size());
  for (kj::uint i = 0; i < list.size(); i++) {
    list[i].setName(uses[i].name);
    list[i].setUsed(uses[i].used);
    list[i].setAllowed(uses[i].allowed);
  }
}

void describeQueues(kj::ArrayPtr<const QueueCounts> queues, ProcessLoad::Builder load) {
  auto list = load.initQueues(queues.size());
  for (kj::uint i = 0; i < list.size(); i++) {
    auto& counts = queues[i].counts;
    list[i].setIndex(queues[i].queue);
    list[i].setRequests(counts.requests);
    list[i].setFromGuestBytes(counts.fromGuestBytes);
    list[i].setToGuestBytes(counts.toGuestBytes);
    list[i].setErrors(counts.errors);
    list[i].setInFlight(counts.inFlight);
    list[i].setWaitNs(counts.waitNs);
    auto waits = list[i].initWaits(virtio::CounterSlot::WAITS);
    for (uint32_t bucket = 0; bucket < virtio::CounterSlot::WAITS; bucket++)
      waits.set(bucket, counts.waits[bucket]);
  }
}

}  // namespace troupe
