// Drives a device as it ships, in its jail: jailed DEVICE SECONDS | jailed DEVICE --inputs N |
// jailed DEVICE --replay FILE. The operations are those of the targets in a process; this program
// is broker and driver, over the real pipe, eventfds and memory.
//
// A finding is: a process that ends, by its filter, a fault, a trap or by itself; a call that is
// not answered in time; fds, threads or memory that grow; a request that is not answered after a
// reset.
#include <kj/debug.h>
#include <kj/string.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "devices/virtio/wire.h"
#include "tests/fuzz/guest_driver.h"
#include "tests/fuzz/jailed_device.h"
#include "tests/fuzz/op_generator.h"
#include "tests/fuzz/process_usage.h"

namespace troupe::fuzz {
namespace {

using virtio::testing::FakeRam;
using virtio::testing::ProcessBench;

constexpr uint64_t INPUTS_PER_PROCESS = 10000;
constexpr uint64_t INPUTS_PER_LOOK = 250;
constexpr size_t MAX_PHRASES = 6;

// The guest's view of RAM that the device maps too.
class SharedSpace final: public GuestSpace {
 public:
  explicit SharedSpace(FakeRam& ram) {
    for (size_t i = 0; i < REGION_COUNT; i++)
      begins[i] = ram.bytes(REGIONS[i].guestAddress, REGIONS[i].size).begin();
  }
  // What a session leaves in the rings and behind them.
  void clear() { memset(begins[0], FILL, DATA); }
};

class Driver {
 public:
  explicit Driver(JailedDevice& device)
      : device(device),
        sizes(device.queueSizes()),
        ram({{REGIONS[0].guestAddress, REGIONS[0].size},
             {REGIONS[1].guestAddress, REGIONS[1].size},
             {REGIONS[2].guestAddress, REGIONS[2].size}}),
        space(ram) {}

  // One input. Empty when all went well, otherwise what did not.
  std::string run(const std::vector<Op>& ops) {
    try {
      if (bench.get() == nullptr) launch();
      session(ops);
      if (++inputs % INPUTS_PER_LOOK == 0) look();
      if (inputs % INPUTS_PER_PROCESS == 0) bench = nullptr;
      return "";
    } catch (const kj::Exception& exception) {
      std::string what = ending();
      if (what.empty()) what = kj::str(exception.getDescription()).cStr();
      bench = nullptr;
      return what;
    }
  }

  uint64_t processes = 0;

 private:
  void launch() {
    bench = device.start(ram);
    bench->attach();
    ++processes;
    goodAnswer();
    usage = usageOf(bench->child().pid());
  }

  void session(const std::vector<Op>& ops) {
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
  }

  void perform(GuestDriver& driver, const Op& op) {
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
      case OpKind::POKE:
      case OpKind::INTERLEAVE: {  // in time, by luck
        size_t size = size_t(1) << op.a % 4;
        space.write(driver.address(op, size),
                    kj::arrayPtr(reinterpret_cast<const kj::byte*>(&op.d), size));
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

  void activate(GuestDriver& driver, uint64_t features) {
    driver.prepare();
    auto request = bench->device().activateRequest();
    request.setFeatures(features);
    auto queues = request.initQueues(sizes.size());
    for (uint16_t i = 0; i < sizes.size(); i++) {
      auto layout = driver.layout(i);
      queues[i].setIndex(i);
      queues[i].setSize(layout.size);
      queues[i].setDescriptorTable(layout.descriptorTable);
      queues[i].setAvailableRing(layout.availableRing);
      queues[i].setUsedRing(layout.usedRing);
    }
    bench->await(request.send().ignoreResult());
  }

  // Whatever came before, after a reset a device is as new.
  void goodAnswer() {
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

  void look() {
    goodAnswer();
    Usage now = usageOf(bench->child().pid());
    KJ_REQUIRE(now.fds <= usage.fds, "fds grow", usage.fds, now.fds);
    KJ_REQUIRE(now.threads <= usage.threads, "threads grow", usage.threads, now.threads);
    // Pages of its heap that a first long chain touches stay; more than that is a leak.
    KJ_REQUIRE(now.privateKib <= usage.privateKib + 16384, "memory grows", usage.privateKib,
               now.privateKib);
  }

  // How the process ended, if it did.
  std::string ending() {
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

  JailedDevice& device;
  const std::vector<uint16_t> sizes;
  FakeRam ram;
  SharedSpace space;
  kj::Own<ProcessBench> bench;
  Usage usage{};
  uint64_t inputs = 0;
};

// Keeps the input, and says how to try it again.
void tell(const std::string& name, const std::string& what, const std::vector<Op>& ops) {
  std::string path = "/tmp/jailed-" + name + "-" + std::to_string(getpid()) + ".input";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(ops.data()), ops.size() * sizeof(Op));
  printf("FINDING: %s\n  replay: tools/fuzz %s --jailed --replay %s\n", what.c_str(), name.c_str(),
         path.c_str());
}

int replay(const std::string& name, Driver& driver, const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  auto ops = decode(kj::StringPtr(bytes.c_str(), bytes.size()).asBytes());
  std::string what = driver.run(ops);
  printf("%s: %s\n", name.c_str(), what.empty() ? "nothing happened" : what.c_str());
  return what.empty() ? 0 : 1;
}

int drive(const std::string& name, Driver& driver, uint64_t most, uint64_t seconds) {
  using Clock = std::chrono::steady_clock;
  auto begin = Clock::now();
  auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  Random random(1);
  uint64_t done = 0;
  uint64_t findings = 0;
  double shown = 0;
  while (done < most && (seconds == 0 || elapsed() < seconds) && findings < 20) {
    std::vector<Op> ops;
    for (uint32_t i = below(random, MAX_PHRASES) + 1; i > 0; i--) {
      auto more = phrase(random);
      ops.insert(ops.end(), more.begin(), more.end());
    }
    for (uint32_t i = below(random, 4); i > 0; i--)
      mutate(random, ops);
    std::string what = driver.run(ops);
    if (!what.empty()) {
      ++findings;
      tell(name, what, ops);
    }
    ++done;
    if (elapsed() - shown > 5) {
      shown = elapsed();
      printf("%6.0f s  %lu inputs  %.0f inputs/s  findings %lu\n", shown, done, done / shown,
             findings);
      fflush(stdout);
    }
  }
  printf("%s, jailed: %lu inputs in %.0f s, %.0f inputs/s, %lu processes, %lu findings\n",
         name.c_str(), done, elapsed(), done / elapsed(), driver.processes, findings);
  return findings == 0 ? 0 : 1;
}

int usage() {
  fprintf(stderr, "usage: jailed rng|console|blk|vsock SECONDS | --inputs N | --replay FILE\n");
  return 2;
}

int run(int argc, char** argv) {
  if (argc < 3) return usage();
  auto device = jailedDevice(argv[1]);
  if (device.get() == nullptr) return usage();
  Driver driver(*device);
  std::string how = argv[2];
  if (how == "--replay" && argc == 4) return replay(argv[1], driver, argv[3]);
  if (how == "--inputs" && argc == 4)
    return drive(argv[1], driver, strtoull(argv[3], nullptr, 10), 0);
  uint64_t seconds = strtoull(argv[2], nullptr, 10);
  return seconds > 0 ? drive(argv[1], driver, UINT64_MAX, seconds) : usage();
}

}  // namespace
}  // namespace troupe::fuzz

int main(int argc, char** argv) {
  return troupe::fuzz::run(argc, argv);
}
