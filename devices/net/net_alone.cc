// Frames per second of the network device alone: the executable as shipped in its jail, driven by
// this process through shared memory, without a VM. Its host is another process of this program at
// the other end of a socket. Or, for comparison, this process and that one on the same socket, with
// a system call for each frame.
//
//   net_alone device|loop out|in [size=N] [seconds=S] [stream] [program=PATH]
//
// Prints one line. `out` leaves the guest, `in` comes to it. The driver polls, and gives its CPU
// away while there is nothing: everybody is where the scheduler puts them, three on two CPUs maybe.
#include <capnp/message.h>
#include <kj/debug.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/net/testing/lean_net_driver.h"
#include "devices/net/testing/net_driver.h"
#include "devices/virtio/spin.h"
#include "devices/virtio/testing/process_bench.h"

namespace troupe::net {
namespace {

using testing::LeanQueue;
using virtio::testing::FakeRam;
using virtio::testing::ProcessBench;

constexpr uint32_t RECEIVE_BUFFER = 2048;
constexpr uint64_t LOOKS_PER_CLOCK = 64;

struct Order {
  bool device = false;
  bool out = false;
  bool stream = false;
  uint32_t size = 64;
  double seconds = 0.3;
  std::string program = "devices/troupe-devices";
};

kj::Maybe<Order> parse(int argc, char** argv) {
  if (argc < 3) return nullptr;
  Order order;
  order.device = !strcmp(argv[1], "device");
  order.out = !strcmp(argv[2], "out");
  if (!order.device && strcmp(argv[1], "loop")) return nullptr;
  if (!order.out && strcmp(argv[2], "in")) return nullptr;
  for (int i = 3; i < argc; i++) {
    std::string word = argv[i];
    auto value = [&](const char* name) -> const char* {
      std::string start = std::string(name) + "=";
      return word.compare(0, start.size(), start) == 0 ? argv[i] + start.size() : nullptr;
    };
    if (auto size = value("size")) {
      order.size = atoi(size);
    } else if (auto seconds = value("seconds")) {
      order.seconds = atof(seconds);
    } else if (auto program = value("program")) {
      order.program = program;
    } else if (word == "stream") {
      order.stream = true;
    } else {
      return nullptr;
    }
  }
  if (order.size < 60 || order.size > 1514 || order.seconds <= 0) return nullptr;
  return kj::mv(order);
}

// A frame as it stands on the socket.
std::vector<kj::byte> frameOnSocket(const Order& order) {
  auto frame = testing::frame(testing::OWN, testing::OTHER, order.size, 0x5a);
  std::vector<kj::byte> bytes;
  if (order.stream) bytes = {0, 0, kj::byte(order.size >> 8), kj::byte(order.size)};
  bytes.insert(bytes.end(), frame.begin(), frame.end());
  return bytes;
}

// Sends or takes frames for ever, in a process of its own that ends with this one.
pid_t startHost(const Order& order, int socket) {
  pid_t child = fork();
  KJ_ASSERT(child >= 0);
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto frame = frameOnSocket(order);
  // A stream is filled and emptied with many frames at once, as its peers do.
  size_t atOnce = order.stream ? 64 : 1;
  std::vector<kj::byte> bytes;
  for (size_t i = 0; i < atOnce; i++)
    bytes.insert(bytes.end(), frame.begin(), frame.end());
  bytes.resize(std::max(bytes.size(), order.out ? size_t(256 << 10) : bytes.size()));
  for (;;) {
    ssize_t moved = order.out ? read(socket, bytes.data(), bytes.size())
                              : write(socket, bytes.data(), bytes.size());
    if (moved <= 0) _exit(0);
  }
}

double measure(double seconds, kj::FunctionParam<uint64_t()> step) {
  auto run = [&](double time) {
    uint64_t begin = virtio::monotonicNs(), end = begin + uint64_t(time * 1e9);
    uint64_t frames = 0, now;
    do {
      for (uint64_t i = 0; i < LOOKS_PER_CLOCK; i++)
        frames += step();
      now = virtio::monotonicNs();
    } while (now < end);
    return frames / ((now - begin) / 1e9);
  };
  run(seconds / 5);
  return run(seconds);
}

double measureLoop(const Order& order, int socket) {
  auto bytes = frameOnSocket(order);
  std::vector<kj::byte> room(256 << 10);
  uint64_t rest = 0;
  return measure(order.seconds, [&]() -> uint64_t {
    if (order.out) {
      KJ_ASSERT(write(socket, bytes.data(), bytes.size()) == ssize_t(bytes.size()));
      return 1;
    }
    ssize_t moved = read(socket, room.data(), order.stream ? bytes.size() : room.size());
    KJ_ASSERT(moved > 0);
    rest += moved;
    uint64_t frames = rest / bytes.size();
    rest %= bytes.size();
    return frames;
  });
}

double measureDevice(const Order& order, int socket, double& kicksPerFrame) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<NetConfig>();
  config.setMac(kj::ArrayPtr<const kj::byte>(testing::OWN.bytes));
  config.setBackend(order.stream ? NetConfig::Backend::STREAM : NetConfig::Backend::PACKETS);
  FakeRam ram(4 << 20);
  virtio::testing::HandedFd fds[] = {{"socket", 0, socket}};
  ProcessBench device(ram, NET_PROFILE, "troupe-net", 3, fds,
                      message.getRoot<capnp::AnyPointer>().asReader(), order.program.c_str());
  device.attach();
  LeanQueue receiver(ram, RECEIVE_BUFFER, true);
  LeanQueue transmitter(ram, sizeof(virtio::NetHeader) + order.size, false);
  auto request = device.device().activateRequest();
  request.setFeatures(testing::FEATURES);
  auto queues = request.initQueues(2);
  LeanQueue* both[] = {&receiver, &transmitter};
  for (uint16_t i = 0; i < 2; i++) {
    auto where = both[i]->where();
    queues[i].setIndex(i);
    queues[i].setSize(where.size);
    queues[i].setDescriptorTable(where.descriptorTable);
    queues[i].setAvailableRing(where.availableRing);
    queues[i].setUsedRing(where.usedRing);
  }
  device.await(request.send().ignoreResult());

  LeanQueue& queue = order.out ? transmitter : receiver;
  int kick = device.kickFd(order.out ? 1 : 0);
  uint64_t kicks = 0, all = 0;
  double figure = measure(order.seconds, [&]() -> uint64_t {
    uint16_t done = queue.takeUsed();
    queue.give(LeanQueue::RING - queue.outside());
    if (queue.publish()) {
      KJ_SYSCALL(eventfd_write(kick, 1));
      ++kicks;
    }
    if (done == 0) sched_yield();
    all += done;
    return done;
  });
  kicksPerFrame = all == 0 ? 0 : double(kicks) / all;
  device.reset();
  device.disconnect();
  int status = device.waitForExit();
  KJ_REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the device did not end well", status);
  return figure;
}

void report(const Order& order) {
  int fds[2];
  KJ_SYSCALL(
      socketpair(AF_UNIX, (order.stream ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd ours(fds[0]), theirs(fds[1]);
  pid_t host = startHost(order, theirs);
  KJ_DEFER({
    kill(host, SIGKILL);
    waitpid(host, nullptr, 0);
  });
  theirs = nullptr;
  double kicksPerFrame = 0;
  double figure =
      order.device ? measureDevice(order, ours, kicksPerFrame) : measureLoop(order, ours);
  printf("alone what=%s direction=%s socket=%s size=%u frames=%.0f kicks_per_frame=%.4f\n",
         order.device ? "device" : "loop", order.out ? "out" : "in",
         order.stream ? "stream" : "packets", order.size, figure, kicksPerFrame);
}

}  // namespace
}  // namespace troupe::net

int main(int argc, char** argv) {
  KJ_IF_MAYBE (order, troupe::net::parse(argc, argv)) {
    troupe::net::report(*order);
    return 0;
  }
  fputs(
      "usage: net_alone device|loop out|in [size=N] [seconds=S] [stream] [program=PATH]\n"
      "size: 60 to 1514\n",
      stderr);
  return 2;
}
