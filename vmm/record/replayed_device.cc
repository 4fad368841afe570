#include "vmm/record/replayed_device.h"

#include <kj/debug.h>
#include <sys/eventfd.h>

#include "devices/virtio/flight_log.h"
#include "protos/fd_handle.h"

namespace troupe {

namespace {

using virtio::FlightLog;

constexpr size_t MOST_QUEUES = FlightLog::MAX_QUEUES;
// One that does nothing at all for so long hangs, though it may be at work. What it does takes
// microseconds.
constexpr kj::Duration PATIENCE = 60 * kj::SECONDS;
constexpr kj::Duration FIRST_PAUSE = 20 * kj::MICROSECONDS;
constexpr kj::Duration LONGEST_PAUSE = 2 * kj::MILLISECONDS;
// Not sooner is anybody asked what its process does, which costs more than most waits take.
constexpr kj::Duration WORTH_A_LOOK = 20 * kj::MILLISECONDS;

}  // namespace

struct ReplayedDevice::Unanswered final: public kj::Refcounted {
  kj::Vector<kj::Own<kj::PromiseFulfiller<uint64_t>>> byQueue[MOST_QUEUES];
};

// What it asks of its broker is in its recording as well.
class ReplayedDevice::Host final: public DeviceHost::Server {
 public:
  explicit Host(kj::Own<Unanswered> unanswered) : unanswered(kj::mv(unanswered)) {}

  kj::Promise<void> configChanged(ConfigChangedContext) override { return kj::READY_NOW; }
  kj::Promise<void> needsReset(NeedsResetContext) override { return kj::READY_NOW; }
  kj::Promise<void> returnChains(ReturnChainsContext context) override {
    uint16_t queue = context.getParams().getQueue();
    KJ_REQUIRE(queue < MOST_QUEUES, "no such queue", queue);
    auto& waiting = unanswered->byQueue[queue];
    KJ_REQUIRE(waiting.size() < MOST_UNANSWERED, "it does not wait for answers");
    auto answer = kj::newPromiseAndFulfiller<uint64_t>();
    waiting.add(kj::mv(answer.fulfiller));
    return answer.promise.then(
        [context](uint64_t bytes) mutable { context.getResults().setGivenBack(bytes); });
  }

 private:
  static constexpr size_t MOST_UNANSWERED = 64;
  kj::Own<Unanswered> unanswered;
};

ReplayedDevice::ReplayedDevice(kj::AsyncIoContext& io,
                               kj::Own<kj::AsyncCapabilityStream> streamParam,
                               ReplayHost::Client host, const ReplayRoom& room, bool readOnly)
    : io(io),
      host(kj::mv(host)),
      room(room),
      readOnly(readOnly),
      taken(FlightLog::FIRST_EVENT),
      stream(kj::mv(streamParam)),
      rpc(kj::heap<capnp::TwoPartyClient>(*stream, MAX_FDS_PER_MESSAGE)),
      client(rpc->bootstrap().castAs<Device>()),
      unanswered(kj::refcounted<Unanswered>()) {}

ReplayedDevice::~ReplayedDevice() noexcept(false) {}

// Throws as well when no answer will come.
template <typename T>
T ReplayedDevice::await(kj::Promise<T>&& promise) {
  bool isSettled = false;
  auto fork = promise.fork();
  auto settled = fork.addBranch()
                     .then([&isSettled]() { isSettled = true; },
                           [&isSettled](kj::Exception&&) { isSettled = true; })
                     .eagerlyEvaluate(nullptr);
  if (!waitUntil([&]() { return isSettled; })) {
    kj::throwFatalException(KJ_EXCEPTION(OVERLOADED, "the device does not answer"));
  }
  return fork.addBranch().wait(io.waitScope);
}

void ReplayedDevice::attach(capnp::List<RamRegion>::Reader regions, size_t queues) {
  KJ_REQUIRE(ram.get() == nullptr, "it is given its memory twice");
  KJ_REQUIRE(queues <= room.queues.size(), "no device has so many queues", queues);
  ram = kj::heap<ReplayRam>(regions, room.ram);
  auto request = client.attachRequest();
  ram->describe(request.initMemory());
  // As `troupe` has it for a VM: a profile says which.
  request.getMemory().setReadOnly(readOnly);
  request.getMemory().setFile(kj::heap<LentFdHandle>(readOnly ? room.ram.reader : room.ram.writer));
  auto list = request.initQueues(queues);
  for (size_t i = 0; i < queues; i++) {
    drivers.add(nullptr);
    list[i].setKick(kj::heap<LentFdHandle>(room.queues[i].kick));
    list[i].setCall(kj::heap<LentFdHandle>(room.queues[i].call));
  }
  request.setHost(kj::heap<Host>(kj::addRef(*unanswered)));
  await(request.send().ignoreResult());
}

void ReplayedDevice::activate(FlightEvent::Reader event) {
  KJ_REQUIRE(ram.get() != nullptr, "a driver is ready before the device has any memory");
  auto given = event.getActivated();
  for (auto queue : given.getQueues()) {
    KJ_REQUIRE(queue.getIndex() < drivers.size(), "no such queue", queue.getIndex());
    // A ring that cannot be is the guest's mistake, and the device's to find.
    drivers[queue.getIndex()] = nullptr;
    kj::runCatchingExceptions([&]() { drivers[queue.getIndex()].emplace(*ram, queue); });
  }
  auto request = client.activateRequest();
  request.setFeatures(given.getFeatures());
  request.setQueues(given.getQueues());
  request.setNumber(given.getNumber());
  await(request.send().ignoreResult());
}

void ReplayedDevice::askForReport() {
  reporting = client.reportRequest().send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
}

void ReplayedDevice::reach(uint64_t next) {
  __atomic_store_n(room.reached, next, __ATOMIC_RELEASE);
  for (size_t i = 0; i < drivers.size(); i++)
    eventfd_write(room.queues[i].kick, 1);
}

bool ReplayedDevice::giveBack(uint16_t queue, uint64_t bytes) {
  KJ_REQUIRE(queue < MOST_QUEUES, "no such queue", queue);
  auto& waiting = unanswered->byQueue[queue];
  if (!waitUntil([&]() { return waiting.size() > 0; })) return false;
  auto oldest = kj::mv(waiting[0]);
  for (size_t i = 1; i < waiting.size(); i++)
    waiting[i - 1] = kj::mv(waiting[i]);
  waiting.removeLast();
  oldest->fulfill(kj::mv(bytes));
  return true;
}

void ReplayedDevice::reset() {
  for (auto& waiting : unanswered->byQueue)
    waiting.clear();
  await(client.resetRequest().send().ignoreResult());
}

void ReplayedDevice::writeConfig(uint32_t offset, capnp::Data::Reader data) {
  auto request = client.writeConfigRequest();
  request.setOffset(offset);
  request.setData(data);
  await(request.send().ignoreResult());
}

void ReplayedDevice::hostEvent(HostEvent::Reader event) {
  auto request = client.hostEventRequest();
  request.setEvent(event);
  // It may have been refused then, and is now.
  await(request.send().ignoreResult().catch_([](kj::Exception&& failure) {
    if (failure.getType() == kj::Exception::Type::DISCONNECTED)
      kj::throwFatalException(kj::mv(failure));
  }));
}

void ReplayedDevice::make(TakenChain::Reader chain) {
  KJ_REQUIRE(chain.getQueue() < drivers.size(), "no such queue", chain.getQueue());
  KJ_REQUIRE_NONNULL(drivers[chain.getQueue()], "a chain of a queue that is not there").make(chain);
  eventfd_write(room.queues[chain.getQueue()].kick, 1);
}

size_t ReplayedDevice::refresh() {
  auto head = reinterpret_cast<const FlightLog::Head*>(room.flight.begin());
  uint64_t end = head->end.load(std::memory_order_acquire);
  if (end <= taken || end > room.flight.size()) return 0;
  auto begin = reinterpret_cast<const capnp::word*>(room.flight.begin() + taken);
  size_t words = list.take(kj::arrayPtr(begin, (end - taken) / sizeof(capnp::word)));
  taken += words * sizeof(capnp::word);
  known.update(list);
  return words;
}

bool ReplayedDevice::waitUntil(kj::Function<bool()> done) {
  auto& timer = io.provider->getTimer();
  auto& clock = kj::systemPreciseMonotonicClock();
  auto pause = FIRST_PAUSE;
  auto lastSign = clock.now();
  auto lastLook = lastSign;
  // Whether nothing can come any more but what is on its way already.
  bool isLast = false;
  for (;;) {
    bool wasLast = isLast;
    if (refresh() > 0) {
      lastSign = clock.now();
      pause = FIRST_PAUSE;
      isLast = false;
    }
    if (done()) return true;
    auto now = clock.now();
    if ((wasLast && isLast) || now - lastSign > PATIENCE) return false;
    if (now - lastLook > WORTH_A_LOOK) {
      isLast = comesToNothing();
      lastLook = clock.now();
    }
    timer.afterDelay(pause).wait(io.waitScope);
    pause = kj::min(pause * 2, LONGEST_PAUSE);
  }
}

bool ReplayedDevice::comesToNothing() {
  auto state = host.lookRequest().send().wait(io.waitScope).getState();
  return state != DeviceState::BUSY;
}

}  // namespace troupe
