// Frames per second of the network device alone: the executable as shipped in its jail, driven by
// this process through shared memory, without a VM. Its host is another process of this program at
// the other end of a socket. Or, for comparison, this process and that one on the same socket, with
// a system call for each frame.
//
//   net_alone device|loop out|in [size=N] [seconds=S] [stream] [program=PATH]
//   net_alone device|loop out|in tap=FD frames=N [size=N] [program=PATH]
//
// Prints one line. `out` leaves the guest, `in` comes to it. The driver polls, and gives its CPU
// away while there is nothing: everybody is where the scheduler puts them, three on two CPUs maybe.
//
// With `tap` the host is the kernel: FD is a queue of a tap, in which all frames that come `in`
// wait already. The driver then is on CPU 0, the device or the loop on CPU 1, and the line says how
// much CPU time the device's thread used for a frame.
#include <capnp/message.h>
#include <dirent.h>
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
#include <fstream>
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
  int tap = -1;
  uint64_t frames = 0;  // with a tap
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
    } else if (auto tap = value("tap")) {
      order.tap = atoi(tap);
    } else if (auto frames = value("frames")) {
      order.frames = atoll(frames);
    } else if (auto program = value("program")) {
      order.program = program;
    } else if (word == "stream") {
      order.stream = true;
    } else {
      return nullptr;
    }
  }
  if (order.size < 60 || order.size > 1514 || order.seconds <= 0) return nullptr;
  bool isTap = order.tap >= 0;
  if (isTap != (order.frames > 0) || (isTap && order.stream)) return nullptr;
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

// Frames per second of so many, after as many as it takes to get going.
double measureCount(uint64_t count, kj::FunctionParam<uint64_t()> step,
                    kj::FunctionParam<void()> begins) {
  uint64_t moved = 0;
  while (moved < count / 20)
    moved += step();
  begins();
  uint64_t first = moved, begin = virtio::monotonicNs();
  while (moved < count)
    moved += step();
  return (moved - first) / ((virtio::monotonicNs() - begin) / 1e9);
}

double measureFor(double seconds, kj::FunctionParam<uint64_t()> step) {
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

double measure(
    const Order& order, kj::FunctionParam<uint64_t()> step,
    kj::FunctionParam<void()> begins = [] {}) {
  if (order.tap >= 0) return measureCount(order.frames, step, begins);
  return measureFor(order.seconds, step);
}

void pin(pid_t thread, uint32_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  KJ_SYSCALL(sched_setaffinity(thread, sizeof(set), &set));
}

uint64_t threadCpuNs() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * uint64_t(1000000000) + time.tv_nsec;
}

struct Figure {
  double framesPerSecond = 0;
  double kicksPerFrame = 0;
  double cpuNsPerFrame = 0;  // 0: not known
};

Figure measureTapLoop(const Order& order) {
  pin(0, 1);
  auto frame = testing::frame(testing::OWN, testing::OTHER, order.size, 0x5a);
  auto message = testing::withHeader({}, frame);
  std::vector<kj::byte> room(64 << 10);
  uint64_t before = 0;
  auto step = [&]() -> uint64_t {
    if (order.out) {
      KJ_ASSERT(write(order.tap, message.begin(), message.size()) == ssize_t(message.size()));
      return 1;
    }
    ssize_t moved = read(order.tap, room.data(), room.size());
    KJ_ASSERT(moved > 0, "fewer frames than were promised", moved);
    return moved == ssize_t(message.size());
  };
  Figure figure;
  figure.framesPerSecond = measure(order, step, [&] { before = threadCpuNs(); });
  figure.cpuNsPerFrame = (threadCpuNs() - before) / (order.frames * 0.95);
  return figure;
}

double measureLoop(const Order& order, int socket) {
  auto bytes = frameOnSocket(order);
  std::vector<kj::byte> room(256 << 10);
  uint64_t rest = 0;
  return measure(order, [&]() -> uint64_t {
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

// The device's thread that moves the frames; all there is to know of it.
class Mover {
 public:
  explicit Mover(pid_t process) {
    auto folder = kj::str("/proc/", process, "/task");
    DIR* tasks = opendir(folder.cStr());
    KJ_REQUIRE(tasks != nullptr, folder);
    KJ_DEFER(closedir(tasks));
    while (dirent* task = readdir(tasks)) {
      auto path = kj::str(folder, "/", task->d_name);
      if (firstWord(kj::str(path, "/comm")) != "net-q0") continue;
      tid = atoi(task->d_name);
      schedule = kj::str(path, "/schedstat");
    }
    KJ_REQUIRE(tid > 0, "the device has no thread for its pair");
  }
  pid_t thread() const { return tid; }
  uint64_t cpuNs() const { return strtoull(firstWord(schedule).c_str(), nullptr, 10); }

 private:
  static std::string firstWord(kj::StringPtr path) {
    std::ifstream file(path.cStr());
    std::string word;
    file >> word;
    return word;
  }
  pid_t tid = 0;
  kj::String schedule;
};

Figure measureDevice(const Order& order, int socket) {
  bool isTap = order.tap >= 0;
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<NetConfig>();
  config.setMac(kj::ArrayPtr<const kj::byte>(testing::OWN.bytes));
  config.setBackend(isTap          ? NetConfig::Backend::TAP
                    : order.stream ? NetConfig::Backend::STREAM
                                   : NetConfig::Backend::PACKETS);
  FakeRam ram(4 << 20);
  virtio::testing::HandedFd fds[] = {
      {isTap ? "tap"_kj : "socket"_kj, 0, isTap ? order.tap : socket}};
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
  Mover mover(device.child().pid());
  if (isTap) {
    pin(0, 0);
    pin(mover.thread(), 1);
  }
  device.await(request.send().ignoreResult());

  LeanQueue& queue = order.out ? transmitter : receiver;
  int kick = device.kickFd(order.out ? 1 : 0);
  uint64_t kicks = 0, all = 0, allBefore = 0, cpuBefore = 0;
  Figure figure;
  auto step = [&]() -> uint64_t {
    uint16_t done = queue.takeUsed();
    queue.give(LeanQueue::RING - queue.outside());
    if (queue.publish()) {
      KJ_SYSCALL(eventfd_write(kick, 1));
      ++kicks;
    }
    if (done == 0) sched_yield();
    all += done;
    return done;
  };
  auto begins = [&] {
    cpuBefore = mover.cpuNs();
    allBefore = all;
  };
  figure.framesPerSecond = measure(order, step, begins);
  if (isTap) figure.cpuNsPerFrame = double(mover.cpuNs() - cpuBefore) / (all - allBefore);
  figure.kicksPerFrame = all == 0 ? 0 : double(kicks) / all;
  device.reset();
  device.disconnect();
  int status = device.waitForExit();
  KJ_REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the device did not end well", status);
  return figure;
}

void print(const Order& order, const Figure& figure) {
  printf("alone what=%s direction=%s host=%s size=%u frames=%.0f kicks_per_frame=%.4f",
         order.device ? "device" : "loop", order.out ? "out" : "in",
         order.tap >= 0 ? "tap"
         : order.stream ? "stream"
                        : "packets",
         order.size, figure.framesPerSecond, figure.kicksPerFrame);
  if (figure.cpuNsPerFrame > 0) printf(" cpu_ns_per_frame=%.0f", figure.cpuNsPerFrame);
  printf("\n");
}

Figure measureOn(const Order& order, int socket) {
  if (order.device) return measureDevice(order, socket);
  if (order.tap >= 0) return measureTapLoop(order);
  return Figure{measureLoop(order, socket)};
}

void report(const Order& order) {
  if (order.tap >= 0) return print(order, measureOn(order, -1));
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
  print(order, measureOn(order, ours));
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
      "       net_alone device|loop out|in tap=FD frames=N [size=N] [program=PATH]\n"
      "size: 60 to 1514\n",
      stderr);
  return 2;
}
