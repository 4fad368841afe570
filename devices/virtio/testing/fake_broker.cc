#include "devices/virtio/testing/fake_broker.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protos/fd_handle.h"

namespace troupe::virtio::testing {
namespace {

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

kj::AutoCloseFd duplicate(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 0));
  return kj::AutoCloseFd(copy);
}

class EmptyHandle final: public Handle::Server {};

class HostActor final: public DeviceHost::Server {
 public:
  HostActor(FakeHost& host, FakeRam& ram) : host(host), ram(ram) {}

  kj::Promise<void> configChanged(ConfigChangedContext context) override {
    auto params = context.getParams();
    host.configChanges.add(
        FakeHost::ConfigChange{params.getOffset(), kj::heapArray<kj::byte>(params.getData())});
    return kj::READY_NOW;
  }

  kj::Promise<void> needsReset(NeedsResetContext) override {
    ++host.resetsAsked;
    return kj::READY_NOW;
  }

  kj::Promise<void> returnChains(ReturnChainsContext context) override {
    auto params = context.getParams();
    uint64_t bytes = 0;
    auto ranges = KJ_MAP(range, params.getGiveBack()) {
      GuestRange copy{range.getGuestAddress(), range.getSize()};
      auto pages = ram.bytes(copy.guestAddress, copy.size);
      KJ_SYSCALL(madvise(pages.begin(), pages.size(), MADV_REMOVE));
      bytes += copy.size;
      return copy;
    };
    if (ranges.size() > 0) host.givenBack.add(kj::mv(ranges));
    for (auto& ring : host.usedRings)
      if (ring.queue == params.getQueue()) store(ring, params.getChains());
    context.getResults().setGivenBack(bytes);
    return kj::READY_NOW;
  }

 private:
  void store(FakeHost::UsedRing& ring, capnp::List<ReturnedChain>::Reader chains) {
    kj::byte* used = ram.bytes(ring.layout.usedRing, usedRingBytes(ring.layout.size)).begin();
    for (auto chain : chains) {
      kj::byte* element =
          used + USED_RING_OFFSET + ring.next++ % ring.layout.size * USED_ELEMENT_BYTES;
      storeWord<uint32_t>(element, chain.getHead());
      storeWord<uint32_t>(element + sizeof(uint32_t), chain.getWritten());
    }
    storeIndex(used + USED_INDEX_OFFSET, ring.next);
  }

  FakeHost& host;
  FakeRam& ram;
};

}  // namespace

Handle::Client makeHandle(int fd) {
  if (fd < 0) return kj::heap<EmptyHandle>();
  return kj::heap<FdHandle>(duplicate(fd));
}

FakeBroker::FakeBroker(kj::AsyncIoContext& io, FakeRam& ram,
                       kj::Own<kj::AsyncCapabilityStream> streamParam, size_t queueCount)
    : loop(io),
      fakeRam(ram),
      stream(kj::mv(streamParam)),
      rpc(kj::heap<capnp::TwoPartyClient>(*stream, MAX_FDS_PER_MESSAGE)),
      client(rpc->bootstrap().castAs<Device>()) {
  for (size_t i = 0; i < queueCount; i++)
    events.add(Events{makeEventFd(), makeEventFd()});
}

FakeBroker::~FakeBroker() noexcept(false) {}

capnp::Response<Device::DescribeResults> FakeBroker::describe() {
  return await(
      kj::Promise<capnp::Response<Device::DescribeResults>>(client.describeRequest().send()));
}

capnp::Request<Device::AttachParams, Device::AttachResults> FakeBroker::attachRequest() {
  auto request = client.attachRequest();
  fakeRam.describe(request.initMemory());
  request.getMemory().setFile(makeHandle(fakeRam.fd()));
  auto queues = request.initQueues(events.size());
  for (size_t i = 0; i < events.size(); i++) {
    queues[i].setKick(makeHandle(events[i].kick));
    queues[i].setCall(makeHandle(events[i].call));
  }
  request.setHost(kj::heap<HostActor>(host, fakeRam));
  return request;
}

void FakeBroker::attach() {
  await(attachRequest().send().ignoreResult());
}

void FakeBroker::attachReadOnly() {
  auto request = attachRequest();
  request.getMemory().setFile(makeHandle(fakeRam.readOnlyFd()));
  request.getMemory().setReadOnly(true);
  await(request.send().ignoreResult());
}

void FakeBroker::activate(uint64_t features, std::initializer_list<FakeDriver*> drivers) {
  await(activateRequest(features, drivers).send().ignoreResult());
}

capnp::Request<Device::ActivateParams, Device::ActivateResults> FakeBroker::activateRequest(
    uint64_t features, std::initializer_list<FakeDriver*> drivers) {
  auto request = client.activateRequest();
  request.setNumber(1);
  request.setFeatures(features);
  size_t count = 0;
  for (FakeDriver* driver : drivers)
    count += driver != nullptr;
  auto queues = request.initQueues(count);
  size_t next = 0;
  uint16_t index = 0;
  host.usedRings.clear();
  for (FakeDriver* driver : drivers) {
    if (driver != nullptr) {
      RingLayout layout = driver->layout();
      host.usedRings.add(FakeHost::UsedRing{index, layout, 0});
      auto queue = queues[next++];
      queue.setIndex(index);
      queue.setSize(layout.size);
      queue.setDescriptorTable(layout.descriptorTable);
      queue.setAvailableRing(layout.availableRing);
      queue.setUsedRing(layout.usedRing);
    }
    ++index;
  }
  return request;
}

void FakeBroker::reset() {
  await(client.resetRequest().send().ignoreResult());
}

void FakeBroker::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  auto request = client.writeConfigRequest();
  request.setOffset(offset);
  request.setData(data);
  await(request.send().ignoreResult());
}

void FakeBroker::consoleSize(uint16_t columns, uint16_t rows) {
  auto request = client.hostEventRequest();
  auto size = request.initEvent().initConsoleSize();
  size.setColumns(columns);
  size.setRows(rows);
  await(request.send().ignoreResult());
}

void FakeBroker::diskSize(uint64_t bytes) {
  auto request = client.hostEventRequest();
  request.initEvent().setDiskSize(bytes);
  await(request.send().ignoreResult());
}

void FakeBroker::balloonTarget(uint32_t pages) {
  auto request = client.hostEventRequest();
  request.initEvent().setBalloonTarget(pages);
  await(request.send().ignoreResult());
}

void FakeBroker::balloonHint() {
  auto request = client.hostEventRequest();
  request.initEvent().setBalloonHint();
  await(request.send().ignoreResult());
}

capnp::Response<Device::ReportResults> FakeBroker::report() {
  return await(kj::Promise<capnp::Response<Device::ReportResults>>(client.reportRequest().send()));
}

void FakeBroker::kick(uint16_t queue) {
  KJ_SYSCALL(eventfd_write(events[queue].kick, 1));
}

bool FakeBroker::interrupted(uint16_t queue) {
  eventfd_t count;
  return eventfd_read(events[queue].call, &count) == 0;
}

void FakeBroker::waitForInterrupt(uint16_t queue) {
  waitUntil([this, queue] { return interrupted(queue); });
}

void FakeBroker::waitUntil(kj::Function<bool()> done) {
  auto& timer = loop.provider->getTimer();
  auto deadline = kj::systemPreciseMonotonicClock().now() + 10 * kj::SECONDS;
  while (!done()) {
    KJ_REQUIRE(kj::systemPreciseMonotonicClock().now() < deadline, "the device does not do it");
    timer.afterDelay(100 * kj::MICROSECONDS).wait(loop.waitScope);
  }
}

FakeDriver::Used FakeBroker::waitForUsed(uint16_t queue, FakeDriver& driver) {
  if (driver.shouldKick()) kick(queue);
  kj::Maybe<FakeDriver::Used> used;
  waitUntil([&] { return (used = driver.takeUsed()) != nullptr; });
  return KJ_ASSERT_NONNULL(used);
}

void FakeBroker::settle() {
  // A round trip behind everything sent so far, and a moment for the engine's own threads.
  describe();
  loop.provider->getTimer().afterDelay(10 * kj::MILLISECONDS).wait(loop.waitScope);
  describe();
}

bool FakeBroker::sendRaw(kj::ArrayPtr<const kj::byte> bytes) {
  auto problem =
      kj::runCatchingExceptions([&] { await(stream->write(bytes.begin(), bytes.size())); });
  return problem == nullptr;
}

void FakeBroker::disconnect() {
  client = nullptr;
  rpc = nullptr;
  stream = nullptr;
}

}  // namespace troupe::virtio::testing
