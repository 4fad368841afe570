#include "devices/virtio/device_actor.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>

#include <cerrno>

#include "devices/virtio/queue_flight.h"

namespace troupe::virtio {
namespace {

constexpr size_t MAX_QUEUES = 31;          // so that kick and call of each fit one message
constexpr size_t MAX_CONFIG_BYTES = 4096;  // DeviceInfo.config
constexpr uint64_t TRANSPORT_FEATURES = F_VERSION_1;

DeviceDescription checked(DeviceDescription description) {
  KJ_REQUIRE(description.queueSizes.size() <= MAX_QUEUES);
  KJ_REQUIRE(description.config.size() <= MAX_CONFIG_BYTES);
  KJ_REQUIRE(description.configWriteMask.size() == description.config.size());
  return description;
}

// Each queue's at a place that every process of this device finds again. None in no memory.
kj::Array<kj::Own<QueueJournal>> journalsIn(kj::ArrayPtr<kj::byte> memory,
                                            kj::ArrayPtr<const uint16_t> queueSizes) {
  if (memory.size() == 0) return nullptr;
  auto journals = kj::heapArrayBuilder<kj::Own<QueueJournal>>(queueSizes.size());
  size_t begin = 0;
  for (uint16_t size : queueSizes) {
    size_t end = begin + QueueJournal::bytesFor(size);
    KJ_REQUIRE(end <= memory.size(), "the journals do not fit their memory", memory.size());
    journals.add(kj::heap<QueueJournal>(memory.slice(begin, end)));
    begin = end;
  }
  return journals.finish();
}

// None without a page.
kj::Array<kj::Own<QueueCounters>> countersIn(kj::Maybe<CounterPage&> page, size_t queues) {
  static_assert(CounterPage::QUEUES >= MAX_QUEUES, "a slot for each queue");
  KJ_IF_MAYBE (p, page) {
    p->layout = CounterPage::LAYOUT;
    auto counters = kj::heapArrayBuilder<kj::Own<QueueCounters>>(queues);
    for (size_t i = 0; i < queues; i++)
      counters.add(kj::heap<QueueCounters>(p->queues[i]));
    return counters.finish();
  }
  return nullptr;
}

// Whether it is an eventfd cannot be asked without a path; that it never makes us wait can.
void requireNonBlocking(int fd, uint32_t queue) {
  int flags;
  KJ_SYSCALL(flags = fcntl(fd, F_GETFL), queue);
  KJ_REQUIRE((flags & O_ACCMODE) == O_RDWR && (flags & O_NONBLOCK), "not a non-blocking eventfd",
             queue, flags);
}

}  // namespace

DeviceActor::DeviceActor(DeviceEngine& engine, ProcessJail& jail, kj::ArrayPtr<kj::byte> journals,
                         kj::Maybe<CounterPage&> counters, kj::Maybe<FlightLog&> flight,
                         kj::Maybe<Quarantine&> quarantine, kj::Maybe<Pulse&> pulse)
    : engine(engine),
      jail(jail),
      description(checked(engine.describe())),
      journals(journalsIn(journals, description.queueSizes)),
      counters(countersIn(counters, description.queueSizes.size())),
      flight(flight),
      quarantine(quarantine),
      pulse(pulse),
      stopped(kj::Promise<void>(kj::READY_NOW).fork()),
      ready(kj::newPromiseAndFulfiller<uint8_t>()),
      failure(kj::newPromiseAndFulfiller<void>()),
      calls(*this) {
  KJ_IF_MAYBE (log, flight) {
    engine.recordIn(*log);
    size_t words = description.queueSizes.size() + description.config.size();
    log->add(words, [this](FlightEvent::Builder event) { fillInfo(event.initBegan()); });
  }
}

kj::Promise<void> DeviceActor::onFailure() {
  return kj::mv(failure.promise);
}

kj::Promise<void> DeviceActor::describe(DescribeContext context) {
  fillInfo(context.getResults().initInfo());
  return kj::READY_NOW;
}

void DeviceActor::fillInfo(DeviceInfo::Builder info) {
  info.setDeviceType(description.deviceType);
  info.setFeatures(description.features);
  auto sizes = info.initQueueSizes(description.queueSizes.size());
  for (size_t i = 0; i < description.queueSizes.size(); i++)
    sizes.set(i, description.queueSizes[i]);
  info.setConfig(description.config);
  info.setConfigWriteMask(description.configWriteMask);
  info.setResetDeadlineMs(description.resetDeadlineMs);
}

kj::Promise<void> DeviceActor::attach(AttachContext context) {
  KJ_REQUIRE(!attachBegan, "attach() comes once");
  attachBegan = true;
  auto queues = context.getParams().getQueues();
  KJ_REQUIRE(queues.size() == description.queueSizes.size(), "not the number of queues described",
             queues.size());

  auto fds = kj::heapArrayBuilder<kj::Promise<kj::Maybe<int>>>(1 + 2 * queues.size());
  auto memory = context.getParams().getMemory();
  fds.add(memory.hasFile() ? memory.getFile().getFd() : kj::Maybe<int>(nullptr));
  for (auto queue : queues) {
    fds.add(queue.getKick().getFd());
    fds.add(queue.getCall().getFd());
  }
  return kj::joinPromises(fds.finish())
      .then([this, context](kj::Array<kj::Maybe<int>> fds) mutable { takeHold(context, fds); });
}

// The fds in `lent` are open as long as the broker keeps this call: Cap'n Proto holds a call's
// capabilities until then, whatever becomes of its parameters. So everything moves to the number
// the profile gives it; guest RAM stays mapped and its fd goes.
void DeviceActor::takeHold(AttachContext& context, kj::ArrayPtr<const kj::Maybe<int>> lent) {
  auto params = context.getParams();
  auto fds = kj::heapArrayBuilder<QueueFds>(params.getQueues().size());
  for (uint32_t i = 0; i < params.getQueues().size(); i++) {
    fds.add(QueueFds{take("kick", i, lent[1 + 2 * i]), take("call", i, lent[2 + 2 * i])});
    requireNonBlocking(fds.back().kick, i);
    requireNonBlocking(fds.back().call, i);
  }
  KJ_IF_MAYBE (log, flight) {
    auto regions = params.getMemory().getRegions();
    log->add(regions.size() * 4, [&](FlightEvent::Builder event) { event.setAttached(regions); });
  }
  attached =
      kj::heap<Attached>(mapRam(params.getMemory(), lent[0]), fds.finish(), params.getHost());
  jail.enter("ready");
  ready.fulfiller->fulfill(params.getPlace());
}

int DeviceActor::take(kj::StringPtr name, uint32_t index, const kj::Maybe<int>& lent) {
  return jail.place(name, index, KJ_REQUIRE_NONNULL(lent, "it came without its fd", name, index));
}

// What is mapped here is all that this process ever sees of the guest's memory: the fd goes, and
// the filter "ready" maps no file.
RamMapping DeviceActor::mapRam(GuestRam::Reader memory, const kj::Maybe<int>& lent) {
  if (!memory.hasFile()) {
    KJ_REQUIRE(memory.getRegions().size() == 0, "regions of memory without their file");
    return RamMapping();
  }
  int file = take("ram", 0, lent);
  auto access = memory.getReadOnly() ? RamAccess::READ_ONLY : RamAccess::WRITABLE;
  RamMapping mapping(file, access, memory.getRegions());
  jail.close("ram");
  return mapping;
}

DeviceActor::Attached& DeviceActor::requireAttached() {
  return *KJ_REQUIRE_NONNULL(attached, "attach() comes first");
}

kj::Promise<void> DeviceActor::activate(ActivateContext context) {
  Attached& held = requireAttached();
  KJ_REQUIRE(state == State::INACTIVE && !handedOver, "already active; reset() comes first");
  auto params = context.getParams();
  uint64_t features = params.getFeatures();
  KJ_REQUIRE(!params.getResumed() || journals.size() > 0, "nothing was kept of what was in flight");
  KJ_REQUIRE((features & ~(description.features | TRANSPORT_FEATURES)) == 0,
             "features that were not offered", features, description.features);

  jail.enter("run");
  askedForReset = false;
  recordActivation(params);
  // First of all: what stands in the journals from makeRings() on is of this activation.
  bool isResumed = goesOn(params);
  if (!isResumed) engine.forget();
  KJ_IF_MAYBE (rings, makeRings(held, params)) {
    state = State::ACTIVE;
    if (isResumed) {
      engine.resume(held.ram.memory(), features, kj::mv(*rings), *this);
    } else {
      engine.start(held.ram.memory(), features, kj::mv(*rings), *this);
    }
  } else {
    needsReset();
  }
  return kj::READY_NOW;
}

void DeviceActor::recordActivation(ActivateParams::Reader params) {
  KJ_IF_MAYBE (log, flight) {
    log->add(params.getQueues().size() * 8, [&](FlightEvent::Builder event) {
      auto to = event.initActivated();
      to.setFeatures(params.getFeatures());
      to.setQueues(params.getQueues());
      to.setNumber(params.getNumber());
      to.setResumed(params.getResumed());
      to.setOwnFault(params.getOwnFault());
    });
  }
}

// None when the guest chose a ring that cannot be, or one is not as the process before left it.
kj::Maybe<kj::Array<ActiveQueue>> DeviceActor::makeRings(Attached& with,
                                                         ActivateParams::Reader params) {
  const GuestMemory& memory = with.ram.memory();
  uint32_t seen = 0;  // bit per queue: MAX_QUEUES fit
  kj::Vector<ActiveQueue> rings(description.queueSizes.size());
  for (auto queue : params.getQueues()) {
    uint16_t index = queue.getIndex();
    KJ_REQUIRE(index < description.queueSizes.size(), "no such queue", index);
    KJ_REQUIRE((seen & 1u << index) == 0, "the same queue twice", index);
    seen |= 1u << index;

    RingLayout layout{queue.getSize(), queue.getDescriptorTable(), queue.getAvailableRing(),
                      queue.getUsedRing()};
    if (layout.size > description.queueSizes[index] || !isSound(memory, layout)) return nullptr;
    KJ_IF_MAYBE (ring, makeRing(memory, layout, queue, params)) {
      rings.add(ActiveQueue{index, kj::mv(*ring), with.fds[index].kick, with.fds[index].call});
    } else {
      return nullptr;
    }
  }
  return rings.releaseAsArray();
}

// None when it cannot go on where the process before stopped.
kj::Maybe<kj::Own<Virtqueue>> DeviceActor::makeRing(const GuestMemory& memory,
                                                    const RingLayout& layout,
                                                    QueueLayout::Reader queue,
                                                    ActivateParams::Reader params) {
  uint16_t index = queue.getIndex();
  uint64_t features = params.getFeatures();
  RingFeatures ringFeatures{(features & F_INDIRECT_DESC) != 0, (features & F_EVENT_IDX) != 0};
  kj::Maybe<QueueCounters&> counts;
  if (counters.size() > 0) counts = *counters[index];
  kj::Maybe<QueueJournal&> kept;
  if (journals.size() > 0) kept = *journals[index];
  auto ring =
      kj::heap<Virtqueue>(memory, layout, ringFeatures, kept, description.usedRings, counts);
  KJ_IF_MAYBE (thread, pulse) {
    ring->beatIn(*thread);
  }
  KJ_IF_MAYBE (log, flight) {
    ring->record(kj::heap<QueueFlight>(*log, index, layout.size));
  }
  if (journals.size() == 0) return kj::mv(ring);

  QueueJournal& journal = *journals[index];
  if (params.getResumed() && journal.isOf(params.getNumber())) {
    bool goesOn = ring->resume(params.getOwnFault(), queue.getReturned(), description.suspects,
                               quarantine, index);
    if (!goesOn) return nullptr;
  } else {
    // A process that never began has returned nothing.
    if (params.getResumed() && !ring->isFresh(queue.getReturned())) return nullptr;
    journal.clear(layout.size, params.getNumber());
  }
  return kj::mv(ring);
}

// Whether the process before came so far as to serve this activation.
bool DeviceActor::goesOn(ActivateParams::Reader params) const {
  if (!params.getResumed()) return false;
  for (auto queue : params.getQueues()) {
    bool isKnown = queue.getIndex() < journals.size();
    if (isKnown && journals[queue.getIndex()]->isOf(params.getNumber())) return true;
  }
  return false;
}

kj::Promise<void> DeviceActor::reset(ResetContext) {
  KJ_IF_MAYBE (log, flight) {
    log->add(0, [](FlightEvent::Builder event) { event.setReset(); });
  }
  if (state == State::ACTIVE) {
    state = State::STOPPING;
    stopped = engine.stop().then([this] { state = State::INACTIVE; }).fork();
  }
  return stopped.addBranch();
}

kj::Promise<void> DeviceActor::writeConfig(WriteConfigContext context) {
  requireAttached();
  uint32_t offset = context.getParams().getOffset();
  auto data = context.getParams().getData();
  KJ_REQUIRE(
      offset <= description.config.size() && data.size() <= description.config.size() - offset,
      "a write past the configuration space", offset, data.size());
  KJ_IF_MAYBE (log, flight) {
    log->add(data.size() / 8 + 1, [&](FlightEvent::Builder event) {
      event.initConfigWritten().setOffset(offset);
      event.getConfigWritten().setData(data);
    });
  }
  engine.writeConfig(offset, data);
  return kj::READY_NOW;
}

kj::Promise<void> DeviceActor::hostEvent(HostEventContext context) {
  requireAttached();
  KJ_IF_MAYBE (log, flight) {
    log->add(16, [&](FlightEvent::Builder event) {
      event.setHostEvent(context.getParams().getEvent());
    });
  }
  return engine.hostEvent(context.getParams().getEvent());
}

kj::Promise<void> DeviceActor::report(ReportContext context) {
  requireAttached();
  KJ_IF_MAYBE (log, flight) {
    log->add(0, [](FlightEvent::Builder event) { event.setReportAsked(); });
  }
  auto written = engine.report(context.getResults().initReport());
  return written.attach(kj::mv(context));
}

kj::Promise<void> DeviceActor::handOver(HandOverContext) {
  KJ_REQUIRE(!handedOver, "it has handed over");
  KJ_REQUIRE(journals.size() > 0, "nothing is kept for anybody");
  handedOver = true;
  if (state != State::ACTIVE) return stopped.addBranch();
  state = State::STOPPING;
  stopped = engine.handOver().then([this] { state = State::INACTIVE; }).fork();
  return stopped.addBranch();
}

// What goes wrong in it is for `troupe` to hear: by this process's end.
kj::Promise<void> DeviceActor::takeOver(TakeOverContext context) {
  requireAttached();
  KJ_REQUIRE(!takeOverBegan && state == State::INACTIVE, "it comes once, before all others");
  takeOverBegan = true;
  return engine.takeOver()
      .then([this, context]() mutable {
        for (auto& one : counters)
          one->clear();
        auto now = checked(engine.describe());
        KJ_REQUIRE(now.config.size() == description.config.size());
        description.config = kj::mv(now.config);
        context.getResults().setConfig(description.config);
      })
      .catch_([this](kj::Exception&& exception) {
        failure.fulfiller->reject(kj::cp(exception));
        kj::throwFatalException(kj::mv(exception));
      });
}

void DeviceActor::configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  KJ_IF_MAYBE (log, flight) {
    log->add(data.size() / 8 + 1, [&](FlightEvent::Builder event) {
      event.initConfigChanged().setChangedOffset(offset);
      event.getConfigChanged().setChangedData(data);
    });
  }
  auto request = requireAttached().host.configChangedRequest();
  request.setOffset(offset);
  request.setData(data);
  calls.add(request.send().ignoreResult());
}

void DeviceActor::needsReset() {
  if (askedForReset) return;  // once is enough, and a guest must not flood the broker
  askedForReset = true;
  KJ_IF_MAYBE (log, flight) {
    log->add(0, [](FlightEvent::Builder event) { event.setNeedsReset(); });
  }
  calls.add(requireAttached().host.needsResetRequest().send().ignoreResult());
}

kj::Promise<uint64_t> DeviceActor::returnChains(uint16_t queue,
                                                kj::ArrayPtr<const UsedElement> chains,
                                                kj::ArrayPtr<const GuestRange> giveBack) {
  auto request = requireAttached().host.returnChainsRequest();
  request.setQueue(queue);
  auto list = request.initChains(chains.size());
  for (size_t i = 0; i < chains.size(); i++) {
    list[i].setHead(chains[i].head);
    list[i].setWritten(chains[i].written);
  }
  auto ranges = request.initGiveBack(giveBack.size());
  for (size_t i = 0; i < giveBack.size(); i++) {
    ranges[i].setGuestAddress(giveBack[i].guestAddress);
    ranges[i].setSize(giveBack[i].size);
  }
  return request.send().then([](auto&& response) { return uint64_t(response.getGivenBack()); });
}

void DeviceActor::taskFailed(kj::Exception&& exception) {
  // A broker that is gone is seen by whoever serves the connection.
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  failure.fulfiller->reject(kj::mv(exception));
}

}  // namespace troupe::virtio
