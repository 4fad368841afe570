#include "tests/fuzz/jailed_driver.h"

#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstring>

#include "devices/virtio/wire.h"

namespace troupe::fuzz {
namespace {

using virtio::testing::FakeRam;
using virtio::testing::ProcessBench;

constexpr uint64_t INPUTS_PER_PROCESS = 10000;
constexpr uint64_t INPUTS_PER_LOOK = 250;

kj::Own<FakeRam> makeRam() {
  FakeRam::Region a{REGIONS[0].guestAddress, REGIONS[0].size};
  FakeRam::Region b{REGIONS[1].guestAddress, REGIONS[1].size};
  FakeRam::Region c{REGIONS[2].guestAddress, REGIONS[2].size};
  if (!coverage::IS_BUILT)
    return kj::heap<FakeRam>(std::initializer_list<FakeRam::Region>{a, b, c});
  FakeRam::Region d{coverage::GUEST_ADDRESS, coverage::BYTES};
  return kj::heap<FakeRam>(std::initializer_list<FakeRam::Region>{a, b, c, d});
}

}  // namespace

JailedDriver::SharedSpace::SharedSpace(FakeRam& ram) {
  for (size_t i = 0; i < REGION_COUNT; i++)
    begins[i] = ram.bytes(REGIONS[i].guestAddress, REGIONS[i].size).begin();
}

void JailedDriver::SharedSpace::clear() {
  memset(begins[0], FILL, DATA);
}

JailedDriver::JailedDriver(JailedDevice& device)
    : device(device), sizes(device.queueSizes()), ram(makeRam()), space(*ram) {
  if (coverage::IS_BUILT) counts = ram->bytes(coverage::GUEST_ADDRESS, coverage::BYTES);
}

std::string JailedDriver::run(const std::vector<Op>& ops) {
  try {
    if (bench.get() == nullptr) launch();
    if (counts.size() > 0) memset(counts.begin(), 0, counts.size());
    session(ops);
    if (++inputs % INPUTS_PER_LOOK == 0) look();
    if (inputs % INPUTS_PER_PROCESS == 0) bench = nullptr;
    return "";
  } catch (const kj::Exception& exception) {
    racer.stop();
    std::string what = ending();
    if (what.empty()) what = kj::str(exception.getDescription()).cStr();
    bench = nullptr;
    return what;
  }
}

void JailedDriver::launch() {
  bench = device.start(*ram, {});
  if (device.readsOnly()) {
    bench->attachReadOnly();
  } else {
    bench->attach();
  }
  ++processCount;
  goodAnswer();
  usage = usageOf(bench->child().pid());
}

void JailedDriver::session(const std::vector<Op>& ops) {
  space.clear();
  GuestDriver driver(space, kj::arrayPtr(sizes.data(), sizes.size()));
  uint64_t features = device.features();
  bool active = false;
  for (const Op& op : ops) {
    switch (op.what()) {
      case OpKind::FEATURES:
        features = virtio::F_VERSION_1 | (device.features() & (op.a & 1 ? ~op.d : op.d));
        continue;
      case OpKind::QUEUE:
        driver.choose(op);
        continue;
      case OpKind::RESET:
        if (active) bench->reset();
        active = false;
        continue;
      default:
        break;
    }
    if (!active) activate(driver, features);
    active = true;
    perform(driver, op);
  }
  bench->reset();
  racer.stop();
}

void JailedDriver::perform(GuestDriver& driver, const Op& op) {
  switch (op.what()) {
    case OpKind::BUFFER:
      driver.addBuffer(op);
      break;
    case OpKind::REQUEST: {
      RequestTemplate request;
      device.request(op, request);
      driver.addRequest(request);
      break;
    }
    case OpKind::PUBLISH:
      driver.publish(op);
      break;
    case OpKind::POKE: {
      size_t size = size_t(1) << op.a % 4;
      space.write(driver.address(op, size),
                  kj::arrayPtr(reinterpret_cast<const kj::byte*>(&op.d), size));
      break;
    }
    case OpKind::INTERLEAVE: {  // at every one of the device's reads from now on, by chance
      size_t size = size_t(1) << op.a % 4;
      kj::byte* at = space.host(driver.address(op, size), size);
      if (at != nullptr) racer.race(at, size, op.d);
      break;
    }
    case OpKind::KICK:
      bench->kick(driver.queueOf(op.a));
      break;
    case OpKind::EVENT:  // the driver looks, and its descriptors are free again
      driver.takeUsed(driver.queueOf(op.a));
      break;
    default:
      break;
  }
}

void JailedDriver::activate(GuestDriver& driver, uint64_t features) {
  driver.prepare();
  auto request = bench->device().activateRequest();
  request.setFeatures(features);
  auto queues = request.initQueues(sizes.size());
  bench->host.usedRings.clear();
  for (uint16_t i = 0; i < sizes.size(); i++) {
    auto layout = driver.layout(i);
    bench->host.usedRings.add(virtio::testing::FakeHost::UsedRing{i, layout, 0});
    queues[i].setIndex(i);
    queues[i].setSize(layout.size);
    queues[i].setDescriptorTable(layout.descriptorTable);
    queues[i].setAvailableRing(layout.availableRing);
    queues[i].setUsedRing(layout.usedRing);
  }
  bench->await(request.send().ignoreResult());
}

// Whatever came before, after a reset a device is as new.
void JailedDriver::goodAnswer() {
  space.clear();
  GuestDriver driver(space, kj::arrayPtr(sizes.data(), sizes.size()));
  activate(driver, device.features());
  uint16_t queue = device.goodQueue();
  RequestTemplate request;
  device.request(device.goodRequest(), request);
  driver.addRequest(request);
  driver.publish(Op{uint8_t(OpKind::PUBLISH), uint8_t(queue), 0, 0, 0});
  bench->kick(queue);
  bench->waitUntil([&] { return !driver.takeUsed(queue).empty(); });
  bench->reset();
}

void JailedDriver::look() {
  goodAnswer();
  Usage now = usageOf(bench->child().pid());
  KJ_REQUIRE(now.fds <= usage.fds, "fds grow", usage.fds, now.fds);
  KJ_REQUIRE(now.threads <= usage.threads, "threads grow", usage.threads, now.threads);
  // Pages of its heap that a first long chain touches stay; more than that is a leak.
  KJ_REQUIRE(now.privateKib <= usage.privateKib + 16384, "memory grows", usage.privateKib,
             now.privateKib);
}

// How the process ended, if it did.
std::string JailedDriver::ending() {
  if (bench.get() == nullptr || kill(bench->child().pid(), 0) != 0) return "";
  // A process that was killed hangs up before it can be waited for.
  kj::Maybe<int> status;
  try {
    status = bench->io.provider->getTimer()
                 .timeoutAfter(300 * kj::MILLISECONDS, bench->child().onExit())
                 .wait(bench->io.waitScope);
  } catch (const kj::Exception&) {
    return "";
  }
  int ended = KJ_ASSERT_NONNULL(status);
  if (!WIFSIGNALED(ended)) return "it ended with status " + std::to_string(WEXITSTATUS(ended));
  switch (WTERMSIG(ended)) {
    case SIGSYS:
      return "its jail ended it (SIGSYS)";
    case SIGILL:
    case SIGTRAP:
      return "undefined behaviour was trapped (SIGILL)";
    default:
      return std::string("it was killed by ") + strsignal(WTERMSIG(ended));
  }
}

}  // namespace troupe::fuzz
