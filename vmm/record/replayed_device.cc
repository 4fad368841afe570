#include "vmm/record/replayed_device.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/virtio/flight_log.h"
#include "sandbox/shared_memory.h"
#include "vmm/fd_handle.h"
#include "vmm/wait_status.h"

namespace troupe {

namespace {

using virtio::FlightLog;

constexpr size_t MOST_QUEUES = FlightLog::MAX_QUEUES;
// One that does nothing at all for so long hangs. What it does takes microseconds.
constexpr kj::Duration PATIENCE = 60 * kj::SECONDS;
constexpr kj::Duration FIRST_PAUSE = 20 * kj::MICROSECONDS;
constexpr kj::Duration LONGEST_PAUSE = 2 * kj::MILLISECONDS;

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

struct Ends {
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};

Ends makeSockets() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

Ends makeLog() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC | O_NONBLOCK));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

// As much as the recording had, and what a device that goes astray may add.
uint64_t flightBytes(uint64_t recordingBytes) {
  return (recordingBytes + recordingBytes / 2 + (16 << 20)) & ~uint64_t(4095);
}

sandbox::SharedMemory answersIn(kj::ArrayPtr<const kj::byte> answers) {
  auto memory = sandbox::makeSharedMemory("answers", (answers.size() + 4095) & ~size_t(4095));
  size_t done = 0;
  while (done < answers.size()) {
    ssize_t written;
    KJ_SYSCALL(written =
                   pwrite(memory.writable, answers.begin() + done, answers.size() - done, done));
    done += written;
  }
  return memory;
}

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

ReplayedDevice::ReplayedDevice(kj::AsyncIoContext& io, int executable, kj::StringPtr program,
                               ReplayStart startParam, kj::ArrayPtr<const kj::byte> answers,
                               uint64_t recordingBytes)
    : io(io),
      start(kj::mv(startParam)),
      memoryBytes(flightBytes(recordingBytes)),
      taken(FlightLog::FIRST_EVENT),
      launcher(io.unixEventPort, sandbox::Jail::ON),
      client(nullptr),
      unanswered(kj::refcounted<Unanswered>()),
      watching(nullptr) {
  memory = sandbox::makeSharedMemory("flight", memoryBytes).writable;
  void* address = mmap(nullptr, memoryBytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, memory, 0);
  if (address == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(recording)", errno, memoryBytes);
  flight = static_cast<kj::byte*>(address);

  auto known = answersIn(answers);
  address = mmap(nullptr, sizeof(virtio::AnswerTable::Head), PROT_READ | PROT_WRITE, MAP_SHARED,
                 known.writable, 0);
  if (address == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(answers)", errno);
  reached = &static_cast<virtio::AnswerTable::Head*>(address)->reached;
  auto sockets = makeSockets();
  auto log = makeLog();
  kj::Vector<sandbox::HandedFd> fds;
  fds.addAll(start.fds);
  fds.add(sandbox::HandedFd{"rpc", 0, sockets.theirs});
  fds.add(sandbox::HandedFd{"log", 0, log.theirs});
  fds.add(sandbox::HandedFd{"flight", 0, memory, memoryBytes});
  fds.add(sandbox::HandedFd{"answers", 0, known.writable, answers.size()});
  process = launcher.launch(start.profile, executable, program, "the replayed device", fds,
                            start.config->getRoot<capnp::AnyPointer>().asReader());
  words = kj::heap<ChildLog>(io.lowLevelProvider->wrapInputFd(kj::mv(log.ours)), "device",
                             io.provider->getTimer());
  watching = process->onExit().then([this](int ended) { status = ended; }).eagerlyEvaluate(nullptr);
  process->started().wait(io.waitScope);
  stream = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(sockets.ours));
  rpc = kj::heap<capnp::TwoPartyClient>(*stream, MAX_FDS_PER_MESSAGE);
  client = rpc->bootstrap().castAs<Device>();
}

ReplayedDevice::~ReplayedDevice() noexcept(false) {}

template <typename T>
T ReplayedDevice::await(kj::Promise<T>&& promise) {
  return io.provider->getTimer().timeoutAfter(PATIENCE, kj::mv(promise)).wait(io.waitScope);
}

void ReplayedDevice::attach(capnp::List<RamRegion>::Reader regions, size_t queues) {
  KJ_REQUIRE(ram.get() == nullptr, "it is given its memory twice");
  KJ_REQUIRE(queues <= MOST_QUEUES, "no device has so many queues", queues);
  ram = kj::heap<ReplayRam>(regions);
  auto request = client.attachRequest();
  ram->describe(request.initMemory());
  // As `troupe` has it for a VM: a profile says which.
  bool readOnly = start.profile.layers.memory.access == sandbox::ProfileMemory::READ_ONLY;
  request.getMemory().setReadOnly(readOnly);
  request.getMemory().setFile(handleToCopy(ram->fd(readOnly)));
  auto list = request.initQueues(queues);
  for (size_t i = 0; i < queues; i++) {
    eventFds.add(Events{makeEventFd(), makeEventFd()});
    drivers.add(nullptr);
    list[i].setKick(handleToCopy(eventFds.back().kick));
    list[i].setCall(handleToCopy(eventFds.back().call));
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
  __atomic_store_n(reached, next, __ATOMIC_RELEASE);
  for (auto& queue : eventFds)
    eventfd_write(queue.kick, 1);
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
  eventfd_write(eventFds[chain.getQueue()].kick, 1);
}

size_t ReplayedDevice::refresh() {
  auto head = reinterpret_cast<const FlightLog::Head*>(flight);
  uint64_t end = head->end.load(std::memory_order_acquire);
  if (end <= taken || end > memoryBytes) return 0;
  auto begin = reinterpret_cast<const capnp::word*>(flight + taken);
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
  for (;;) {
    bool hasEnded = status != nullptr;
    if (refresh() > 0) {
      lastSign = clock.now();
      pause = FIRST_PAUSE;
    }
    if (done()) return true;
    if (hasEnded || clock.now() - lastSign > PATIENCE) return false;
    timer.afterDelay(pause).wait(io.waitScope);
    pause = kj::min(pause * 2, LONGEST_PAUSE);
  }
}

kj::String ReplayedDevice::state() {
  KJ_IF_MAYBE (ended, status) {
    auto said = words->lastWords();
    auto refused = process->refusedCall();
    return kj::str("the device ", describeWaitStatus(*ended),
                   refused == nullptr
                       ? kj::str()
                       : kj::str("; its jail allows no ", KJ_ASSERT_NONNULL(refused).call),
                   said.size() == 0 ? kj::str() : kj::str(": ", said.back()));
  }
  return kj::str("the device did not do that within ", PATIENCE / kj::SECONDS, " s");
}

}  // namespace troupe
