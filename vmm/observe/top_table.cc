#include "vmm/observe/top_table.h"

#include <kj/vector.h>

#include "devices/virtio/queue_counters.h"
#include "vmm/words/json_line.h"
#include "vmm/words/number_text.h"
#include "vmm/words/table.h"

namespace troupe {

namespace {

constexpr kj::uint WAITS = virtio::CounterSlot::WAITS;
constexpr double NS_PER_US = 1e3;
constexpr double NS_PER_SECOND = 1e9;

uint64_t since(uint64_t now, uint64_t before) {
  return now >= before ? now - before : 0;
}

kj::Maybe<QueueLoad::Reader> find(ProcessLoad::Reader process, uint16_t index) {
  for (auto queue : process.getQueues()) {
    if (queue.getIndex() == index) return queue;
  }
  return nullptr;
}

uint64_t waitsIn(QueueLoad::Reader queue, kj::uint bucket) {
  return bucket < queue.getWaits().size() ? queue.getWaits()[bucket] : 0;
}

// What one queue did since it was looked at before, or several of them together.
struct QueueSums {
  uint64_t requests = 0, bytes = 0, inFlight = 0, waitNs = 0;
  uint64_t waits[WAITS] = {};

  void add(QueueLoad::Reader queue, kj::Maybe<QueueLoad::Reader> earlier) {
    inFlight += queue.getInFlight();
    requests += queue.getRequests();
    bytes += queue.getFromGuestBytes() + queue.getToGuestBytes();
    waitNs += queue.getWaitNs();
    for (kj::uint i = 0; i < WAITS; i++)
      waits[i] += waitsIn(queue, i);
    KJ_IF_MAYBE (before, earlier) {
      requests = since(requests, before->getRequests());
      bytes = since(bytes, before->getFromGuestBytes() + before->getToGuestBytes());
      waitNs = since(waitNs, before->getWaitNs());
      for (kj::uint i = 0; i < WAITS; i++)
        waits[i] = since(waits[i], waitsIn(*before, i));
    }
  }
};

// The bound below which 99 of 100 stay; that of the last is not known, and is twice the one before.
double p99Of(const QueueSums& sums, uint64_t timed) {
  uint64_t below = 0;
  for (kj::uint i = 0; i + 1 < WAITS; i++) {
    below += sums.waits[i];
    if (below * 100 >= timed * 99) return double(virtio::waitBound(i));
  }
  return 2 * double(virtio::waitBound(WAITS - 2));
}

kj::String waitText(const kj::Maybe<double>& us) {
  KJ_IF_MAYBE (value, us) {
    if (*value < 1000) return kj::str(decimalText(*value, 1), " us");
    return kj::str(decimalText(*value / 1000, 1), " ms");
  }
  return kj::str("-");
}

kj::String rateText(double perSecond) {
  return decimalText(perSecond, perSecond < 10 ? 1 : 0);
}

kj::String bytesText(double bytes) {
  constexpr kj::StringPtr UNITS[] = {"B"_kj, "K"_kj, "M"_kj, "G"_kj, "T"_kj};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < kj::size(UNITS); unit++)
    bytes /= 1024;
  return kj::str(decimalText(bytes, unit == 0 || bytes >= 100 ? 0 : 1), UNITS[unit]);
}

kj::String limitsText(ProcessLoad::Reader process, const ProcessRates& rates) {
  kj::Vector<kj::String> parts;
  for (auto limit : process.getLimits()) {
    if (limit.getName() == "memory_max") {
      parts.add(kj::str("memory ", bytesText(limit.getUsed()), "/", bytesText(limit.getAllowed())));
    } else if (limit.getName() == "cpu_max") {
      parts.add(kj::str("cpu ", decimalText(rates.cpuPercent, 0), "/",
                        decimalText(limit.getAllowed() / NS_PER_SECOND * 100, 0), "%"));
    } else if (limit.getName() == "pids_max") {
      parts.add(kj::str("tasks ", limit.getUsed(), "/", limit.getAllowed()));
    }
  }
  return parts.size() == 0 ? kj::str("-") : kj::strArray(parts, ", ");
}

uint64_t elapsed(VmLoad::Reader now, VmLoad::Reader earlier) {
  return since(now.getMonotonicNs(), earlier.getMonotonicNs());
}

double percent(uint64_t cpuNs, uint64_t elapsedNs) {
  return elapsedNs == 0 ? 0 : 100.0 * double(cpuNs) / double(elapsedNs);
}

double cpuOf(ThreadLoad::Reader thread, kj::Maybe<ProcessLoad::Reader> earlier,
             uint64_t elapsedNs) {
  KJ_IF_MAYBE (before, earlier) {
    for (auto one : before->getThreads()) {
      if (one.getName() == thread.getName())
        return percent(since(thread.getCpuNs(), one.getCpuNs()), elapsedNs);
    }
  }
  return 0;
}

JsonLine queueJson(QueueLoad::Reader queue) {
  JsonLine waits(JsonLine::Kind::LIST);
  for (auto count : queue.getWaits())
    waits.add(count);
  JsonLine json;
  json.number("queue", uint64_t(queue.getIndex()))
      .number("requests", queue.getRequests())
      .number("fromGuestBytes", queue.getFromGuestBytes())
      .number("toGuestBytes", queue.getToGuestBytes())
      .number("errors", queue.getErrors())
      .number("inFlight", queue.getInFlight())
      .number("waitNs", queue.getWaitNs())
      .json("waits", waits);
  return json;
}

JsonLine processJson(ProcessLoad::Reader process, kj::Maybe<ProcessLoad::Reader> earlier,
                     uint64_t elapsedNs) {
  auto rates = ratesOf(process, earlier, elapsedNs);
  JsonLine json;
  json.text("name", process.getName())
      .text("kind", process.getKind())
      .number("pid", process.getPid())
      .decimal("cpuPercent", rates.cpuPercent)
      .number("cpuNs", process.getCpuNs())
      .number("privateBytes", process.getPrivateBytes())
      .number("sharedBytes", process.getSharedBytes())
      .number("restarts", uint64_t(process.getRestarts()))
      .truth("isDown", process.getIsDown())
      .decimal("requestsPerSecond", rates.requestsPerSecond)
      .decimal("bytesPerSecond", rates.bytesPerSecond)
      .number("inFlight", rates.inFlight);
  auto wait = [&](kj::StringPtr name, const kj::Maybe<double>& us) {
    KJ_IF_MAYBE (value, us) {
      json.decimal(name, *value);
    } else {
      json.null(name);
    }
  };
  wait("meanWaitUs", rates.meanWaitUs);
  wait("p99WaitUs", rates.p99WaitUs);
  JsonLine queues(JsonLine::Kind::LIST), threads(JsonLine::Kind::LIST),
      limits(JsonLine::Kind::LIST);
  for (auto queue : process.getQueues())
    queues.add(queueJson(queue));
  for (auto thread : process.getThreads()) {
    threads.add(JsonLine()
                    .text("name", thread.getName())
                    .number("cpuNs", thread.getCpuNs())
                    .decimal("cpuPercent", cpuOf(thread, earlier, elapsedNs)));
  }
  for (auto limit : process.getLimits()) {
    limits.add(JsonLine()
                   .text("name", limit.getName())
                   .number("used", limit.getUsed())
                   .number("allowed", limit.getAllowed()));
  }
  json.json("queues", queues).json("threads", threads).json("limits", limits);
  return json;
}

}  // namespace

kj::Maybe<ProcessLoad::Reader> find(VmLoad::Reader load, ProcessLoad::Reader process) {
  for (auto one : load.getProcesses()) {
    if (one.getName() == process.getName()) return one;
  }
  return nullptr;
}

ProcessRates ratesOf(ProcessLoad::Reader now, kj::Maybe<ProcessLoad::Reader> earlier,
                     uint64_t elapsedNs) {
  ProcessRates rates = {};
  QueueSums sums;
  kj::Maybe<uint64_t> cpuBefore;
  KJ_IF_MAYBE (before, earlier) {
    // A successor's clock begins anew, its counters go on.
    bool isSame = before->getPid() == now.getPid();
    cpuBefore = isSame ? before->getCpuNs() : 0;
    for (auto queue : now.getQueues()) {
      QueueSums one;
      one.add(queue, find(*before, queue.getIndex()));
      sums.requests += one.requests;
      sums.bytes += one.bytes;
      sums.inFlight += one.inFlight;
      sums.waitNs += one.waitNs;
      for (kj::uint i = 0; i < WAITS; i++)
        sums.waits[i] += one.waits[i];
    }
  }
  rates.inFlight = sums.inFlight;
  if (elapsedNs == 0) return rates;
  KJ_IF_MAYBE (before, cpuBefore) {
    rates.cpuPercent = percent(since(now.getCpuNs(), *before), elapsedNs);
  }
  double seconds = double(elapsedNs) / NS_PER_SECOND;
  rates.requestsPerSecond = double(sums.requests) / seconds;
  rates.bytesPerSecond = double(sums.bytes) / seconds;
  uint64_t timed = 0;
  for (uint64_t count : sums.waits)
    timed += count;
  if (timed > 0) {
    rates.meanWaitUs = double(sums.waitNs) / double(timed) / NS_PER_US;
    rates.p99WaitUs = p99Of(sums, timed) / NS_PER_US;
  }
  return rates;
}

kj::String topTable(VmLoad::Reader now, VmLoad::Reader earlier) {
  constexpr kj::StringPtr HEADINGS[] = {"PROCESS"_kj, "PID"_kj,      "CPU%"_kj,  "MEMORY"_kj,
                                        "REQ/S"_kj,   "B/S"_kj,      "RING"_kj,  "WAIT"_kj,
                                        "P99<="_kj,   "RESTARTS"_kj, "LIMITS"_kj};
  Table table(HEADINGS);
  auto elapsedNs = elapsed(now, earlier);
  for (auto process : now.getProcesses()) {
    auto before = find(earlier, process);
    auto rates = ratesOf(process, before, elapsedNs);
    bool serves = process.getQueues().size() > 0;
    auto ifServing = [&](kj::String text) { return serves ? kj::mv(text) : kj::str("-"); };
    table.add(kj::arr(
        kj::str(process.getName()), kj::str(process.getPid()), decimalText(rates.cpuPercent, 1),
        bytesText(process.getPrivateBytes()), ifServing(rateText(rates.requestsPerSecond)),
        ifServing(bytesText(rates.bytesPerSecond)), ifServing(kj::str(rates.inFlight)),
        waitText(rates.meanWaitUs), waitText(rates.p99WaitUs),
        kj::str(process.getRestarts(), process.getIsDown() ? ", down" : ""),
        limitsText(process, rates)));
    for (auto thread : process.getThreads()) {
      table.add(kj::arr(kj::str("  ", thread.getName()), kj::str(),
                        decimalText(cpuOf(thread, before, elapsedNs), 1), kj::str(), kj::str(),
                        kj::str(), kj::str(), kj::str(), kj::str(), kj::str(), kj::str()));
    }
  }
  return kj::str(now.getName(), ": ", now.getState(), " for ", now.getUptimeMs() / 1000, " s, ",
                 now.getCpus(), " CPU(s), ", sizeText(now.getMemoryBytes()), " of RAM, ",
                 now.getLastEvent(), " event(s), over ",
                 decimalText(double(elapsedNs) / NS_PER_SECOND, 1), " s\n", table.render());
}

kj::String topLine(VmLoad::Reader now, VmLoad::Reader earlier) {
  auto elapsedNs = elapsed(now, earlier);
  JsonLine processes(JsonLine::Kind::LIST);
  for (auto process : now.getProcesses())
    processes.add(processJson(process, find(earlier, process), elapsedNs));
  return JsonLine()
      .text("name", now.getName())
      .text("state", now.getState())
      .number("uptimeMs", now.getUptimeMs())
      .number("monotonicNs", now.getMonotonicNs())
      .number("intervalNs", elapsedNs)
      .number("cpus", uint64_t(now.getCpus()))
      .number("memoryBytes", now.getMemoryBytes())
      .number("guestRestarts", uint64_t(now.getReboots()))
      .number("lastEvent", now.getLastEvent())
      .json("processes", processes)
      .render();
}

}  // namespace troupe
