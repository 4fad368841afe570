#include "broker/device_slot.h"

#include <kj/debug.h>

#include <cstring>

#include "broker/msix.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

// As many of a device's events as wait for its successor at once.
constexpr size_t MOST_WAITING = 8;

// An event is told to so many processes, one after the other's death.
constexpr kj::uint MOST_TELLINGS = 4;

// The fds of the broker's profile that a device's pipe can be, by turns.
constexpr kj::StringPtr PLACES[] = {"device"_kj, "successor"_kj};

kj::Exception failure(kj::StringPtr text) {
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::heapString(text));
}

}  // namespace

// One process of the device. What it says before it serves is not the driver's business: nobody
// has asked it for anything.
class DeviceSlot::Process final: private VirtioDeviceClient {
 public:
  Process(DeviceSlot& slot, kj::AutoCloseFd pipe, uint32_t number, kj::StringPtr place)
      : slot(slot),
        number(number),
        place(place),
        remote(slot.io, slot.index, slot.name, kj::mv(pipe),
               [this](uint16_t, kj::StringPtr, kj::StringPtr why) {
                 isLost = true;
                 this->slot.noteLoss(*this, why);
               }) {}
  ~Process() noexcept(false) {
    asked.cancel(KJ_EXCEPTION(DISCONNECTED, "the device's process was given up"));
  }

  // For all that it is asked for and that somebody else waits for: the answer, and what is done
  // with it here, come to an end with this object.
  template <typename T>
  kj::Promise<T> ask(kj::Promise<T> answer) {
    return asked.wrap(kj::mv(answer));
  }

  kj::Promise<void> attach(kj::Maybe<RamDeputy&> deputy = nullptr) {
    uint8_t number = place == PLACES[0] ? 0 : 1;
    return remote.attach(slot.ram, slot.queueFds, *this, deputy, number).then([this]() {
      isAttached = true;
    });
  }

  bool isReady() const { return isAttached && !isLost; }

  DeviceSlot& slot;
  const uint32_t number;
  const kj::StringPtr place;
  bool serves = false;
  bool isAttached = false;
  bool isTakingOver = false;
  bool isLost = false;
  RemoteDevice remote;

 private:
  kj::Canceler asked;

  bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override {
    return !serves || slot.configChanged(offset, data);
  }
  void needsReset() override {
    if (serves) slot.needsReset();
  }
  void resetDone() override {
    if (serves) slot.resetDone();
  }
};

DeviceSlot::DeviceSlot(kj::AsyncIoContext& io, uint16_t index, kj::StringPtr name, Loss loss,
                       ProcessLost lost)
    : io(io), index(index), name(kj::heapString(name)), loss(loss), lost(kj::mv(lost)) {}

DeviceSlot::~DeviceSlot() noexcept(false) {}

RemoteDevice& DeviceSlot::current() {
  return KJ_REQUIRE_NONNULL(serving, "the device has no process", name)->remote;
}

kj::Promise<DeviceDescription> DeviceSlot::describe(kj::AutoCloseFd pipe) {
  auto& first = *serving.emplace(kj::heap<Process>(*this, kj::mv(pipe), 0, freePlace()));
  first.serves = true;
  return first.ask(first.remote.describe()).then([this](DeviceDescription&& first) {
    DeviceDescription copy{
        first.deviceType, first.features, kj::heapArray<uint16_t>(first.queueSizes),
        kj::heapArray<kj::byte>(first.config), kj::heapArray<kj::byte>(first.configWriteMask)};
    description = kj::mv(first);
    return copy;
  });
}

kj::Promise<void> DeviceSlot::attach(RamGrant granted, kj::ArrayPtr<const QueueFds> queues,
                                     VirtioDeviceClient& newClient,
                                     kj::Maybe<RamDeputy&> newDeputy) {
  ram = kj::mv(granted);
  queueFds = queues;
  client = newClient;
  deputy = newDeputy;
  auto& first = *KJ_ASSERT_NONNULL(serving);
  return first.ask(first.attach(deputy));
}

kj::StringPtr DeviceSlot::freePlace() const {
  KJ_IF_MAYBE (process, serving) {
    if ((*process)->place == PLACES[0]) return PLACES[1];
  }
  return PLACES[0];
}

void DeviceSlot::noteLoss(Process& process, kj::StringPtr why) {
  if (process.serves) state = State::AWAY;
  lost(index, process.number, name, why);
}

void DeviceSlot::letGo() {
  if (state == State::SERVING) state = State::AWAY;
  callsBefore = callCount();
  serving = nullptr;
  KJ_IF_MAYBE (returning, deputy) {
    returning->suspend();
  }
}

void DeviceSlot::dropPrepared() {
  KJ_IF_MAYBE (process, prepared) {
    callsBefore += (*process)->remote.callCount();
    prepared = nullptr;
  }
}

kj::Promise<void> DeviceSlot::prepare(kj::AutoCloseFd pipe) {
  KJ_REQUIRE(loss == Loss::REPLACED && client != nullptr && prepared == nullptr,
             "this device is not to be replaced now", name);
  auto& process =
      *prepared.emplace(kj::heap<Process>(*this, kj::mv(pipe), ++successors, freePlace()));
  return process.ask(process.remote.describe().then([this, &process](DeviceDescription&& found) {
    requireSame(found);
    return process.attach();
  }));
}

void DeviceSlot::requireSame(const DeviceDescription& successor) {
  auto& known = KJ_ASSERT_NONNULL(description);
  auto demand = [this](bool holds, kj::StringPtr what) {
    if (!holds) refuse("TRP-pci-004: device ", name, " came back as another: its ", what);
  };
  demand(successor.deviceType == known.deviceType, "type differs");
  demand((known.features & ~successor.features) == 0, "driver was offered features it lacks");
  demand(successor.queueSizes == known.queueSizes, "queues differ");
  demand(successor.configWriteMask == known.configWriteMask, "configuration differs");
}

kj::Promise<void> DeviceSlot::resume(bool ownFault) {
  auto& process = *KJ_REQUIRE_NONNULL(prepared, "prepare() comes first", name);
  KJ_REQUIRE(serving == nullptr && process.isReady() && !process.isTakingOver,
             "letGo() and prepare() come first", name);
  process.isTakingOver = true;
  uint32_t number = process.number;
  return process.ask(process.remote.takeOver())
      .then([this, number, ownFault](kj::Array<kj::byte> config) {
        KJ_IF_MAYBE (next, prepared) {
          if ((*next)->number == number && (*next)->isReady()) return putInPlace(ownFault, config);
        }
        kj::throwFatalException(failure("it was lost as it took over"));
      });
}

kj::Promise<void> DeviceSlot::handOver() {
  KJ_REQUIRE(loss == Loss::REPLACED && state == State::SERVING,
             "the device is being replaced already", name);
  state = State::AWAY;  // what the driver wishes from now on is its successor's business
  auto& process = *KJ_ASSERT_NONNULL(serving);
  uint32_t number = process.number;
  // Given up not at once, but outside of its own answer.
  return process.ask(process.remote.handOver())
      .then([]() { return kj::evalLater([]() {}); })
      .then([this, number]() {
        KJ_IF_MAYBE (now, serving) {
          if ((*now)->number == number) letGo();
        }
      });
}

void DeviceSlot::putInPlace(bool ownFault, kj::ArrayPtr<const kj::byte> config) {
  serving = kj::mv(prepared);
  prepared = nullptr;
  auto& process = *KJ_ASSERT_NONNULL(serving);
  process.serves = true;
  state = State::SERVING;
  KJ_IF_MAYBE (returning, deputy) {
    process.remote.appoint(*returning);
  }
  adoptConfig(config);
  tellWritten();
  KJ_IF_MAYBE (held, driver) {
    process.remote.activate(held->features, kj::heapArray<QueueSettings>(held->queues),
                            Activation{activations, /*resumed=*/true, ownFault});
    signalCalls();
  }
  if (resetting) {
    resetting = false;  // nothing of the driver's is touched by a process that was never activated
    KJ_IF_MAYBE (returning, deputy) {
      returning->deactivate();
    }
    KJ_ASSERT_NONNULL(client).resetDone();
  }
  for (auto& waiting : awaitService)
    waiting->fulfill();
  awaitService.clear();
}

kj::Promise<void> DeviceSlot::leaveDown() {
  KJ_REQUIRE(loss == Loss::REPLACED && client != nullptr, "this device is not to be replaced",
             name);
  letGo();
  dropPrepared();
  state = State::DOWN;
  for (auto& waiting : awaitService)
    waiting->fulfill();  // to be told that it is down
  awaitService.clear();
  auto paf = kj::newPromiseAndFulfiller<void>();
  awaitsDriver = kj::mv(paf.fulfiller);
  needsReset();
  if (resetting) wake();
  return kj::mv(paf.promise);
}

// The driver asks for a device that was left down.
void DeviceSlot::wake() {
  KJ_IF_MAYBE (waiting, awaitsDriver) {
    state = State::AWAY;
    (*waiting)->fulfill();
    awaitsDriver = nullptr;
  }
}

// What the successor says of itself is newer: a disk may have grown meanwhile. What drivers may
// write is theirs.
void DeviceSlot::adoptConfig(kj::ArrayPtr<const kj::byte> newer) {
  auto& known = KJ_ASSERT_NONNULL(description);
  if (newer.size() != known.config.size()) return;  // it has broken its word; what is known stays
  auto differs = [&](size_t i) {
    return known.configWriteMask[i] == 0 && known.config[i] != newer[i];
  };
  for (size_t i = 0; i < known.config.size(); i++) {
    if (!differs(i)) continue;
    size_t begin = i;
    while (i < known.config.size() && differs(i))
      i++;
    configChanged(begin, newer.slice(begin, i));
  }
}

void DeviceSlot::tellWritten() {
  for (size_t i = 0; i < MAX_CONFIG_SIZE; i++) {
    if (!written[i]) continue;
    size_t begin = i;
    while (i < MAX_CONFIG_SIZE && written[i])
      i++;
    current().writeConfig(begin, kj::arrayPtr(writtenBytes + begin, i - begin));
  }
}

// The process before may have died between the used index and the interrupt for it; one that was
// not due is nothing to a driver.
void DeviceSlot::signalCalls() {
  KJ_IF_MAYBE (held, driver) {
    for (auto& queue : held->queues)
      signalEventFd(queueFds[queue.index].call);
  }
}

kj::Promise<void> DeviceSlot::hostEvent(HostEvent::Reader event) {
  if (loss == Loss::FINAL) return current().hostEvent(event);
  auto copy = kj::heap<capnp::MallocMessageBuilder>();
  copy->setRoot(event);
  return tell(kj::mv(copy), MOST_TELLINGS);
}

kj::Promise<void> DeviceSlot::tell(Event event, uint tries) {
  if (tries == 0) return failure("each process of the device that was told of it died");
  if (state == State::DOWN) return failure("the device is down until its driver resets it");
  if (state == State::AWAY) {
    return untilServing().then(
        [this, tries, event = kj::mv(event)]() mutable { return tell(kj::mv(event), tries); });
  }
  uint32_t process = KJ_ASSERT_NONNULL(serving)->number;
  auto told = current().hostEvent(event->getRoot<HostEvent>().asReader());
  return told.catch_([this, tries, process,
                      event = kj::mv(event)](kj::Exception&& failure) mutable -> kj::Promise<void> {
    bool isSame = false;
    KJ_IF_MAYBE (now, serving) {
      isSame = state == State::SERVING && (*now)->number == process;
    }
    bool isGone = failure.getType() == kj::Exception::Type::DISCONNECTED;
    if (isSame && !isGone) return kj::mv(failure);
    // That its pipe is closed may be seen here before it is known as lost.
    auto successor = isSame ? untilServing() : kj::Promise<void>(kj::READY_NOW);
    return successor.then(
        [this, tries, event = kj::mv(event)]() mutable { return tell(kj::mv(event), tries - 1); });
  });
}

kj::Promise<void> DeviceSlot::untilServing() {
  if (awaitService.size() >= MOST_WAITING) {
    return KJ_EXCEPTION(OVERLOADED, "too many events wait for the device", name);
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  awaitService.add(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

kj::Promise<kj::Own<capnp::MallocMessageBuilder>> DeviceSlot::report() {
  if (state != State::SERVING) return KJ_EXCEPTION(DISCONNECTED, "the device is being replaced");
  auto& process = *KJ_ASSERT_NONNULL(serving);
  return process.ask(process.remote.report());
}

void DeviceSlot::activate(uint64_t features, kj::Array<QueueSettings> queues) {
  ++activations;
  if (state == State::SERVING) {
    current().activate(features, kj::heapArray<QueueSettings>(queues), Activation{activations});
  }
  driver = Driver{features, kj::mv(queues)};
  wake();
}

void DeviceSlot::reset() {
  driver = nullptr;
  resetting = true;
  if (state == State::SERVING || loss == Loss::FINAL) current().reset();
  wake();
}

void DeviceSlot::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  for (size_t i = 0; i < data.size() && offset + i < MAX_CONFIG_SIZE; i++) {
    written.set(offset + i);
    writtenBytes[offset + i] = data[i];
  }
  if (state == State::SERVING) current().writeConfig(offset, data);
}

uint64_t DeviceSlot::callCount() const {
  uint64_t count = callsBefore;
  KJ_IF_MAYBE (process, serving) {
    count += (*process)->remote.callCount();
  }
  return count;
}

bool DeviceSlot::configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  if (!KJ_ASSERT_NONNULL(client).configChanged(offset, data)) return false;
  auto& known = KJ_ASSERT_NONNULL(description).config;
  memcpy(known.begin() + offset, data.begin(), data.size());
  return true;
}

void DeviceSlot::needsReset() {
  KJ_ASSERT_NONNULL(client).needsReset();
}

// Of the process that serves.
void DeviceSlot::resetDone() {
  if (state != State::SERVING && loss == Loss::REPLACED) return;  // putInPlace() says so
  resetting = false;
  KJ_ASSERT_NONNULL(client).resetDone();
}

}  // namespace troupe::broker
