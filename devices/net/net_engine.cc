#include "devices/net/net_engine.h"

#include <kj/debug.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "devices/virtio/wire.h"

namespace troupe::net {
namespace {

constexpr uint16_t LEAST_MTU = 68;  // §5.1.4.1
constexpr uint32_t CAPTURE_DEADLINE_MS = 5000;

// What a tap is told, for a recording: a pair's number, or this.
constexpr uint64_t TAP_OFFLOADS = 1 << 16;

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

virtio::RateLimit limitOf(const NetOptions::Rate& rate) {
  using virtio::TokenBucket;
  KJ_REQUIRE(TokenBucket::accepts(rate.bytesPerSecond, rate.burstBytes) &&
                 TokenBucket::accepts(rate.framesPerSecond, rate.burstFrames),
             "TRP-net-104: a rate is at most 1 TiB or 2^40 frames in a second, its burst from 1 to "
             "an hour's worth",
             rate.bytesPerSecond, rate.burstBytes, rate.framesPerSecond, rate.burstFrames);
  return {{rate.bytesPerSecond, rate.burstBytes}, {rate.framesPerSecond, rate.burstFrames}};
}

NetOptions checked(const NetOptions& options, const NetEngine::Host& host) {
  KJ_REQUIRE(!options.mac.isGroup() && !options.mac.isZero(),
             "TRP-net-101: the address of a network device is a group's, or all zeroes");
  size_t pairs = host.backends.size();
  KJ_REQUIRE(pairs >= 1 && pairs <= MAX_PAIRS,
             "TRP-net-102: a network device has 1 to 15 queue pairs", pairs);
  KJ_REQUIRE(options.mtu == 0 || options.mtu >= LEAST_MTU,
             "TRP-net-103: the MTU of a network device is at least 68", options.mtu);
  return options;
}

}  // namespace

NetEngine::NetEngine(kj::UnixEventPort& port, Host hostParam, const NetOptions& optionsParam,
                     NetProcess& process, kj::ArrayPtr<kj::byte> memory)
    : port(port),
      host(kj::mv(hostParam)),
      options(checked(optionsParam, host)),
      receiveLimit(limitOf(options.receiveRate)),
      transmitLimit(limitOf(options.transmitRate)),
      settings{options.mac,   options.spoofFilter, receiveLimit,
               transmitLimit, host.capture,        options.spinMicros},
      events(process.keep("events", 0, makeEventFd())),
      linkUp(options.linkUp),
      observer(port, events, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      watching(nullptr) {
  if (memory.size() > 0) kept.emplace(memory);
  told = {};
  memcpy(told.mac, options.mac.bytes, sizeof(told.mac));
  told.status = status();
  told.maxVirtqueuePairs = host.backends.size();
  told.mtu = options.mtu;

  auto made = kj::heapArrayBuilder<Pair>(host.backends.size());
  for (uint16_t i = 0; i < host.backends.size(); i++) {
    auto wake = process.keep("wake", i, makeEventFd());
    auto queue = kj::heap<NetQueue>(settings, *host.backends[i], i, wake, events,
                                    [&process] { process.confineThread(); });
    made.add(Pair{kj::mv(wake), kj::mv(queue)});
  }
  pairs = made.finish();
  watching = watch().eagerlyEvaluate([](kj::Exception&& exception) {
    KJ_LOG(FATAL, "the pairs' events cannot be read", exception);
    _exit(1);
  });
}

// The threads go before the rings they may be working on.
NetEngine::~NetEngine() noexcept(false) {
  pairs = nullptr;
}

virtio::DeviceDescription NetEngine::describe() {
  virtio::DeviceDescription description;
  description.deviceType = virtio::ID_NETWORK;
  description.features = virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::NET_F_MAC |
                         virtio::NET_F_STATUS | virtio::NET_F_MRG_RXBUF | virtio::NET_F_CTRL_VQ |
                         virtio::NET_F_CTRL_RX | virtio::NET_F_CTRL_RX_EXTRA |
                         virtio::NET_F_CTRL_MAC_ADDR | virtio::NET_F_GUEST_ANNOUNCE |
                         featuresOf(options.offloads);
  if (options.mtu > 0) description.features |= virtio::NET_F_MTU;
  if (pairs.size() > 1) description.features |= virtio::NET_F_MQ;
  description.queueSizes = kj::heapArray<uint16_t>(2 * pairs.size() + 1);
  for (uint16_t& size : description.queueSizes)
    size = QUEUE_SIZE;
  description.queueSizes.back() = CONTROL_QUEUE_SIZE;
  description.config = kj::heapArray<kj::byte>(kj::arrayPtr(&told, 1).asBytes());
  description.configWriteMask = kj::heapArray<kj::byte>(sizeof(told));
  memset(description.configWriteMask.begin(), 0, sizeof(told));
  // A pair's thread waits for the disk when a capture does.
  if (host.capture != nullptr) description.resetDeadlineMs = CAPTURE_DEADLINE_MS;
  return description;
}

void NetEngine::start(const virtio::GuestMemory&, uint64_t features,
                      kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  begin(Driver::NEW, features, kj::mv(queues), link);
}

void NetEngine::resume(const virtio::GuestMemory&, uint64_t features,
                       kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  begin(Driver::OF_A_DEAD_PROCESS, features, kj::mv(queues), link);
}

void NetEngine::forget() {
  KJ_IF_MAYBE (memory, kept) {
    memory->forget();
  }
}

void NetEngine::recordIn(virtio::FlightLog& log) {
  for (size_t i = 0; i < host.recorded.size(); i++)
    host.recorded[i]->recordIn(log, 2 * i);
  tapFlight.emplace(log, uint16_t(2 * pairs.size()));
}

bool NetEngine::isReplayed() {
  KJ_IF_MAYBE (inputs, tapFlight) {
    return inputs->isReplaying();
  }
  return false;
}

// Whether the kernel does what a tap's driver asks of it. Without a tap there is nothing to do.
bool NetEngine::tapDoes(uint64_t what, kj::FunctionParam<bool()> ask) {
  if (!host.isTap) return true;
  KJ_IF_MAYBE (inputs, tapFlight) {
    constexpr auto KIND = HostCall::Kind::SETTING;
    bool done = inputs->isReplaying() ? inputs->answer(KIND).result >= 0 : ask();
    inputs->called({KIND, what}, done ? 0 : -EINVAL);
    return done;
  }
  return ask();
}

void NetEngine::begin(Driver driver, uint64_t features, kj::Array<virtio::ActiveQueue> queues,
                      virtio::DriverLink& link) {
  bool multiple = features & virtio::NET_F_MQ;
  uint16_t most = multiple ? pairs.size() : 1;
  Control::Limits limits{features, most, !options.spoofFilter};
  auto keeps = isReplayed() ? SharedRules::Keeps::ALL : SharedRules::Keeps::LAST;
  auto& now = *active.emplace(kj::heap<Active>(link, features, options.mac, limits, keeps));
  ++activations;
  bool isSound = driver == Driver::NEW || recall();
  // Who takes another's place has lost frames, and its neighbours may have looked for the guest
  // meanwhile.
  announce = driver == Driver::OF_A_DEAD_PROCESS;
  tellMac(now.control.mac);
  tellStatus();
  tellRules();

  // §5.1.2: without MQ the control queue is the third, whatever the device could have.
  uint16_t controlQueue = 2 * most;
  kj::Maybe<virtio::ActiveQueue> commands;
  for (virtio::ActiveQueue& queue : queues) {
    if (queue.index < controlQueue) {
      now.rings[queue.index] = kj::mv(queue);
    } else if (queue.index == controlQueue && (features & virtio::NET_F_CTRL_VQ)) {
      commands = kj::mv(queue);
    }
  }
  note();
  // A driver says by the control queue when it uses more than one (§5.1.6.5.5).
  uint16_t used = now.control.pairs;
  if (host.tap != nullptr) {
    host.tap->setOffloads(now.control.rules.toGuest);
    for (uint16_t i = used; i < pairs.size(); i++)
      host.tap->detach(i);
  }
  startPair(0);
  if (!isSound || !startPairs(1, used)) link.needsReset();
  // Last: a driver may have a command in its ring by now, and it is obeyed at once.
  KJ_IF_MAYBE (queue, commands) {
    now.server = kj::heap<ControlServer>(port, kj::mv(*queue), now.control,
                                         static_cast<ControlTarget&>(*this), link);
  }
}

// False when a process before this one left something that cannot be.
bool NetEngine::recall() {
  auto& control = KJ_ASSERT_NONNULL(active)->control;
  auto& memory = KJ_REQUIRE_NONNULL(kept, "nothing was kept of what the driver said");
  KJ_IF_MAYBE (said, memory.recall(control.said())) {
    return control.restore(*said);
  }
  return false;
}

// So that a successor finds what the driver was told is so.
void NetEngine::note() {
  KJ_IF_MAYBE (memory, kept) {
    memory->note(KJ_ASSERT_NONNULL(active)->control.said());
  }
}

// False, and some of them not started, when one of them cannot be.
bool NetEngine::startPairs(uint16_t from, uint16_t to) {
  auto& now = *KJ_ASSERT_NONNULL(active);
  for (uint16_t i = from; i < to; i++) {
    bool enabled = now.rings[2 * i] != nullptr && now.rings[2 * i + 1] != nullptr;
    if (!enabled) return false;
  }
  for (uint16_t i = from; i < to; i++) {
    if (!attach(i)) return false;
    startPair(i);
    now.control.pairs = i + 1;
  }
  return true;
}

bool NetEngine::attach(uint16_t pair) {
  return tapDoes(pair, [&] { return host.tap->attach(pair); });
}

void NetEngine::startPair(uint16_t index) {
  auto& now = *KJ_ASSERT_NONNULL(active);
  auto queue = [&](uint16_t i) {
    PairWork::Queue result{nullptr, -1, -1};
    KJ_IF_MAYBE (ring, now.rings[i]) {
      result = {ring->ring.get(), ring->kick, ring->call};
    }
    return result;
  };
  pairs[index].queue->start(
      PairWork{queue(2 * index), queue(2 * index + 1), now.features, &now.rules, activations});
}

kj::Promise<void> NetEngine::stop() {
  auto& now = *KJ_REQUIRE_NONNULL(active, "stop() comes after start()");
  now.server = nullptr;
  for (Pair& pair : pairs)
    pair.queue->stop();
  return rested(0).then([this] {
    // The next driver reads these before DRIVER_OK.
    tellMac(options.mac);
    announce = false;
    tellStatus();
    active = nullptr;
  });
}

// Its driver goes on, so what it was told stays.
kj::Promise<void> NetEngine::handOver() {
  auto& now = *KJ_REQUIRE_NONNULL(active, "handOver() comes after start()");
  now.server = nullptr;
  for (Pair& pair : pairs)
    pair.queue->stop();
  return rested(0).then([this] { active = nullptr; });
}

kj::Promise<void> NetEngine::takeOver() {
  if (host.tap != nullptr) host.tap->askAgain();
  if (host.capture != nullptr) host.capture->takeOver();
  return kj::READY_NOW;
}

// Resolves when the pairs from `from` on, which were told to stop, are at rest.
kj::Promise<void> NetEngine::rested(uint16_t from) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiting.add(Waiting{from, kj::mv(paf.fulfiller)});
  lookAtPairs();
  return kj::mv(paf.promise);
}

kj::Promise<bool> NetEngine::obey(const Control& control, Control::Command command) {
  return carryOut(control, command).then([this](bool done) {
    note();  // before the driver has its answer
    return done;
  });
}

kj::Promise<bool> NetEngine::carryOut(const Control& control, Control::Command command) {
  switch (command.effect) {
    case Control::Effect::RULES:
      tellRules();
      return true;
    case Control::Effect::ADDRESS:
      tellRules();
      tellMac(control.mac);
      return true;
    case Control::Effect::OFFLOADS:
      tellRules();
      return tapDoes(TAP_OFFLOADS, [&] { return host.tap->setOffloads(control.rules.toGuest); });
    case Control::Effect::ANNOUNCED:
      announce = false;
      tellStatus();
      return true;
    case Control::Effect::PAIRS:
      return usePairs(command.pairs);
    case Control::Effect::REFUSED:
      break;
  }
  return false;
}

// The answer comes when no pair beyond them is served any more (§5.1.6.5.5).
kj::Promise<bool> NetEngine::usePairs(uint16_t count) {
  auto& used = KJ_ASSERT_NONNULL(active)->control.pairs;
  if (used <= count) return startPairs(used, count);
  used = count;
  for (uint16_t i = count; i < pairs.size(); i++)
    pairs[i].queue->stop();
  return rested(count).then([this, count] {
    for (uint16_t i = count; i < pairs.size(); i++)
      if (host.tap != nullptr) host.tap->detach(i);
    return true;
  });
}

kj::Promise<void> NetEngine::hostEvent(HostEvent::Reader event) {
  if (event.isNetLink()) {
    bool wasUp = linkUp;
    linkUp = event.getNetLink();
    // Its neighbours may have learnt another place for its address meanwhile.
    announce |= linkUp && !wasUp;
    tellRules();
    tellStatus();
  } else if (event.isNetAnnounce()) {
    announce = true;
    tellStatus();
  }
  return kj::READY_NOW;
}

void NetEngine::showIn(const virtio::VitalSigns& signs) {
  for (uint32_t i = 0; i < pairs.size(); i++)
    pairs[i].queue->showIn(signs.word(1 + i));
}

void NetEngine::tellRules() {
  KJ_IF_MAYBE (now, active) {
    NetRules rules = (*now)->control.rules;
    rules.linkUp = linkUp;
    (*now)->rules.set(rules);
  }
}

uint16_t NetEngine::status() const {
  bool connected = linkUp;
  for (const Pair& pair : pairs)
    connected &= !pair.queue->isGone();
  bool canAnnounce = false;
  KJ_IF_MAYBE (now, active) {
    canAnnounce = (*now)->features & virtio::NET_F_GUEST_ANNOUNCE;
  }
  uint16_t result = connected ? virtio::NET_S_LINK_UP : 0;
  if (connected && announce && canAnnounce) result |= virtio::NET_S_ANNOUNCE;
  return result;
}

void NetEngine::tellStatus() {
  uint16_t now = status();
  if (now == told.status || active == nullptr) return;
  told.status = now;
  tell(offsetof(virtio::NetConfigSpace, status), kj::arrayPtr(&now, 1).asBytes());
}

void NetEngine::tellMac(const MacAddress& mac) {
  if (memcmp(told.mac, mac.bytes, sizeof(told.mac)) == 0) return;
  memcpy(told.mac, mac.bytes, sizeof(told.mac));
  tell(offsetof(virtio::NetConfigSpace, mac), mac.bytes);
}

// While no driver is there, the next one is told when it begins.
void NetEngine::tell(uint32_t offset, kj::ArrayPtr<const kj::byte> bytes) {
  KJ_ASSERT_NONNULL(active)->link.configChanged(offset, bytes);
}

kj::Promise<void> NetEngine::watch() {
  return observer.whenBecomesReadable().then([this] {
    eventfd_t count;
    eventfd_read(events, &count);  // it only says: look
    lookAtPairs();
    return watch();
  });
}

void NetEngine::lookAtPairs() {
  KJ_IF_MAYBE (now, active) {
    for (Pair& pair : pairs)
      if (pair.queue->takeBroken()) (*now)->link.needsReset();
  }
  tellStatus();

  kj::Vector<Waiting> still;
  for (Waiting& one : waiting) {
    bool resting = true;
    for (uint16_t i = one.from; i < pairs.size(); i++)
      resting &= pairs[i].queue->atRest();
    if (resting) {
      one.fulfiller->fulfill();
    } else {
      still.add(kj::mv(one));
    }
  }
  waiting = kj::mv(still);
}

}  // namespace troupe::net
