#include "vmm/observe/metrics_text.h"

#include <kj/function.h>
#include <kj/vector.h>

#include "devices/virtio/queue_counters.h"
#include "vmm/words/json_line.h"

namespace troupe {

namespace {

constexpr double NS_PER_SECOND = 1e9;
constexpr int DIGITS = 9;

kj::String seconds(uint64_t ns) {
  return decimalText(double(ns) / NS_PER_SECOND, DIGITS);
}

// A label's value: backslash, quotation mark and end of line are escaped, and that is all.
kj::String labelValue(kj::StringPtr text) {
  kj::Vector<char> out;
  for (char c : text) {
    if (c == '\\' || c == '"') out.add('\\');
    if (c == '\n') {
      out.add('\\');
      c = 'n';
    }
    out.add(c);
  }
  return kj::heapString(out.begin(), out.size());
}

class Labels {
 public:
  Labels(kj::StringPtr name, kj::StringPtr value) { add(name, value); }
  Labels&& also(kj::StringPtr name, kj::StringPtr value) && {
    add(name, value);
    return kj::mv(*this);
  }
  kj::String text() const { return kj::str("{", kj::strArray(parts, ","), "}"); }

 private:
  void add(kj::StringPtr name, kj::StringPtr value) {
    parts.add(kj::str(name, "=\"", labelValue(value), "\""));
  }
  kj::Vector<kj::String> parts;
};

// All samples of one metric stand together, below its HELP and TYPE.
class Page {
 public:
  explicit Page(VmLoad::Reader load) : load(load) {}

  void family(kj::StringPtr name, kj::StringPtr type, kj::StringPtr help) {
    lines.add(kj::str("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"));
  }
  void sample(kj::StringPtr name, const Labels& labels, kj::StringPtr value) {
    lines.add(kj::str(name, labels.text(), " ", value, "\n"));
  }

  Labels vm() const { return Labels("vm", load.getName()); }
  Labels process(ProcessLoad::Reader one) const {
    return vm().also("process", one.getName()).also("kind", one.getKind());
  }
  Labels queue(ProcessLoad::Reader one, QueueLoad::Reader queue) const {
    return vm().also("device", one.getName()).also("queue", kj::str(queue.getIndex()));
  }

  using OfVm = kj::FunctionParam<kj::String(VmLoad::Reader)>;
  void perVm(kj::StringPtr name, kj::StringPtr type, kj::StringPtr help, OfVm value) {
    family(name, type, help);
    sample(name, vm(), value(load));
  }
  using OfProcess = kj::FunctionParam<kj::String(ProcessLoad::Reader)>;
  void perProcess(kj::StringPtr name, kj::StringPtr type, kj::StringPtr help, OfProcess value) {
    family(name, type, help);
    for (auto one : load.getProcesses())
      sample(name, process(one), value(one));
  }
  using OfQueue = kj::FunctionParam<uint64_t(QueueLoad::Reader)>;
  void perQueue(kj::StringPtr name, kj::StringPtr type, kj::StringPtr help, OfQueue value) {
    family(name, type, help);
    for (auto one : load.getProcesses()) {
      for (auto each : one.getQueues())
        sample(name, queue(one, each), kj::str(value(each)));
    }
  }

  VmLoad::Reader load;
  kj::Vector<kj::String> lines;
};

void writeState(Page& page) {
  page.family("troupe_state", "gauge", "1 for the state that the VM is in.");
  for (auto state :
       {"starting"_kj, "running"_kj, "paused"_kj, "restarting"_kj, "stopping"_kj, "ending"_kj}) {
    page.sample("troupe_state", page.vm().also("state", state),
                state == page.load.getState() ? "1" : "0");
  }
}

// The bounds are those of the counters; of an interval that was not timed nothing is known.
void writeWaits(Page& page) {
  constexpr kj::StringPtr NAME = "troupe_queue_wait_seconds"_kj;
  auto buckets = kj::str(NAME, "_bucket");
  page.family(NAME, "histogram",
              "Time from a request being taken to being returned, of one request in 16.");
  for (auto process : page.load.getProcesses()) {
    for (auto queue : process.getQueues()) {
      uint64_t below = 0;
      auto waits = queue.getWaits();
      for (kj::uint i = 0; i < waits.size(); i++) {
        below += waits[i];
        auto bound = i + 1 < waits.size() ? seconds(virtio::waitBound(i)) : kj::str("+Inf");
        page.sample(buckets, page.queue(process, queue).also("le", bound), kj::str(below));
      }
      page.sample(kj::str(NAME, "_sum"), page.queue(process, queue), seconds(queue.getWaitNs()));
      page.sample(kj::str(NAME, "_count"), page.queue(process, queue), kj::str(below));
    }
  }
}

void writeVcpus(Page& page) {
  page.family("troupe_vcpu_cpu_seconds_total", "counter", "CPU time of a vCPU's thread.");
  for (auto process : page.load.getProcesses()) {
    for (auto thread : process.getThreads()) {
      page.sample("troupe_vcpu_cpu_seconds_total", page.vm().also("vcpu", thread.getName()),
                  seconds(thread.getCpuNs()));
    }
  }
}

// In the base units of what is limited: bytes, processes and threads, seconds of CPU per second.
void writeLimits(Page& page) {
  auto each = [&](kj::StringPtr name, auto&& value) {
    for (auto process : page.load.getProcesses()) {
      for (auto limit : process.getLimits()) {
        kj::String text = value(limit);
        if (text.size() == 0) continue;
        page.sample(name, page.process(process).also("limit", limit.getName()), text);
      }
    }
  };
  auto isCpu = [](LimitUse::Reader limit) { return limit.getName() == "cpu_max"; };
  page.family("troupe_limit_allowed", "gauge",
              "What a limit in force allows: bytes, tasks, or CPU seconds in a second.");
  each("troupe_limit_allowed", [&](LimitUse::Reader limit) {
    return isCpu(limit) ? seconds(limit.getAllowed()) : kj::str(limit.getAllowed());
  });
  page.family("troupe_limit_used", "gauge",
              "What is used of it; of cpu_max see troupe_process_cpu_seconds_total.");
  each("troupe_limit_used",
       [&](LimitUse::Reader limit) { return isCpu(limit) ? kj::str() : kj::str(limit.getUsed()); });
}

}  // namespace

kj::String metricsText(VmLoad::Reader load) {
  Page page(load);
  writeState(page);
  page.perVm("troupe_uptime_seconds", "gauge", "Time since the VM was started.",
             [](auto vm) { return decimalText(double(vm.getUptimeMs()) / 1000, 3); });
  page.perVm("troupe_memory_bytes", "gauge", "RAM of the guest.",
             [](auto vm) { return kj::str(vm.getMemoryBytes()); });
  page.perVm("troupe_vcpus", "gauge", "CPUs of the guest.",
             [](auto vm) { return kj::str(vm.getCpus()); });
  page.perVm("troupe_guest_restarts_total", "counter", "How often the guest was started anew.",
             [](auto vm) { return kj::str(vm.getReboots()); });
  page.perVm("troupe_events_total", "counter", "Events of the VM, as `troupe events` shows them.",
             [](auto vm) { return kj::str(vm.getLastEvent()); });

  page.perProcess("troupe_process_cpu_seconds_total", "counter",
                  "CPU time of a process and its threads.",
                  [](auto one) { return seconds(one.getCpuNs()); });
  page.perProcess("troupe_process_private_memory_bytes", "gauge",
                  "Memory of a process that nobody else has.",
                  [](auto one) { return kj::str(one.getPrivateBytes()); });
  page.perProcess("troupe_process_shared_memory_bytes", "gauge",
                  "Shared memory, the guest's RAM for the most part, that a process has touched.",
                  [](auto one) { return kj::str(one.getSharedBytes()); });
  page.perProcess("troupe_process_restarts_total", "counter",
                  "How often another process took its place.",
                  [](auto one) { return kj::str(one.getRestarts()); });
  page.perProcess("troupe_process_down", "gauge",
                  "1 for a device that stays down until its driver resets it.",
                  [](auto one) { return kj::str(one.getIsDown() ? 1 : 0); });
  writeVcpus(page);

  page.perQueue("troupe_queue_requests_total", "counter", "Requests returned to the driver.",
                [](auto queue) { return queue.getRequests(); });
  page.perQueue("troupe_queue_from_guest_bytes_total", "counter",
                "Bytes of requests, headers included.",
                [](auto queue) { return queue.getFromGuestBytes(); });
  page.perQueue("troupe_queue_to_guest_bytes_total", "counter",
                "Bytes of answers, headers included.",
                [](auto queue) { return queue.getToGuestBytes(); });
  page.perQueue("troupe_queue_errors_total", "counter",
                "Requests answered with an error, frames dropped, rings that broke.",
                [](auto queue) { return queue.getErrors(); });
  page.perQueue("troupe_queue_in_flight", "gauge", "Requests taken and not yet returned.",
                [](auto queue) { return queue.getInFlight(); });
  writeWaits(page);
  writeLimits(page);
  return kj::strArray(page.lines, "");
}

}  // namespace troupe
