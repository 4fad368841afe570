// Requests per second of the block device alone: the executable as shipped in its jail, driven by
// this process through shared memory, without a VM. Or of a bare preadv()/pwritev() loop on the
// same file.
//
//   blk_alone device|loop FILE [depth=N] [size=N] [seconds=S] [program=PATH] [write] [direct]
//   [qcow2] [counters] [journal]
//
// Prints one line. The driver polls on CPU 0, the device (or the loop) has CPU 1. The bytes written
// are what happens to be in memory: FILE is spoilt. With `qcow2` its virtual size is that of the
// blocks that are asked for, 256 MiB.
#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/testing/lean_driver.h"
#include "devices/virtio/queue_counters.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::blk {
namespace {

using testing::LeanDriver;
using virtio::testing::FakeRam;

constexpr uint64_t FEATURES = (1ull << 32) | (1ull << 28) | (1ull << 29) | virtio::BLK_F_FLUSH;
constexpr uint64_t IMAGE_BYTES = 256 << 20;

struct Order {
  bool device = false;
  kj::StringPtr file = nullptr;
  std::string program = "devices/troupe-devices";
  LeanDriver::Load load;
  double seconds = 0.3;
  bool direct = false;
  bool qcow2 = false;
  bool counters = false;
  bool journal = false;  // counters included
};

kj::Maybe<Order> parse(int argc, char** argv) {
  if (argc < 3) return nullptr;
  std::string what = argv[1];
  Order order;
  order.device = what == "device";
  order.file = argv[2];
  if (!order.device && what != "loop") return nullptr;
  for (int i = 3; i < argc; i++) {
    std::string word = argv[i];
    auto value = [&](const char* name) -> const char* {
      std::string start = std::string(name) + "=";
      return word.compare(0, start.size(), start) == 0 ? argv[i] + start.size() : nullptr;
    };
    if (auto depth = value("depth")) {
      order.load.depth = atoi(depth);
    } else if (auto size = value("size")) {
      order.load.bytes = atoi(size);
    } else if (auto seconds = value("seconds")) {
      order.seconds = atof(seconds);
    } else if (auto program = value("program")) {
      order.program = program;
    } else if (word == "write") {
      order.load.write = true;
    } else if (word == "direct") {
      order.direct = true;
    } else if (word == "qcow2") {
      order.qcow2 = true;
    } else if (word == "journal") {
      order.journal = true;
    } else if (word == "counters") {
      order.counters = true;
    } else {
      return nullptr;
    }
  }
  bool whole = order.load.bytes >= 512 && order.load.bytes % 512 == 0;
  if (!whole || order.load.depth < 1 || order.seconds <= 0) return nullptr;
  return kj::mv(order);
}

uint64_t sizeOf(int fd) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  return info.st_size;
}

// The jailed device with one queue, begun and ended as a VM does it.
testing::LeanFigures measureDevice(const Order& order, int disk, uint64_t diskBytes) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<BlkConfig>();
  config.setId("alone");
  config.setReadOnly(!order.load.write && !order.qcow2);
  if (order.qcow2) {
    config.setFormat(BlkConfig::Format::QCOW2);
    config.setPath(order.file);
  }
  uint64_t buffers = uint64_t(order.load.depth) * order.load.bytes;
  FakeRam ram((buffers + (4 << 20)) & ~uint64_t(4095));
  kj::Vector<virtio::testing::HandedFd> fds;
  fds.add(virtio::testing::HandedFd{"disk", 0, disk});
  auto journals = sandbox::makeSharedMemory("journals", 1 << 20);
  auto counters = sandbox::makeSharedMemory("counters", sizeof(virtio::CounterPage));
  if (order.counters) fds.add(virtio::testing::HandedFd{"journal", 0, counters.writable});
  if (order.journal) fds.add(virtio::testing::HandedFd{"journal", 0, journals.writable});
  testing::pinTo(1);
  virtio::testing::ProcessBench device(ram, BLK_PROFILE, "troupe-blk", 1, fds,
                                       message.getRoot<capnp::AnyPointer>().asReader(),
                                       order.program.c_str());
  testing::pinTo(0);
  device.attach();
  LeanDriver driver(ram, order.load);
  auto request = device.device().activateRequest();
  request.setFeatures(FEATURES);
  request.setNumber(1);
  auto queue = request.initQueues(1)[0];
  auto where = driver.where();
  queue.setSize(where.size);
  queue.setDescriptorTable(where.descriptorTable);
  queue.setAvailableRing(where.availableRing);
  queue.setUsedRing(where.usedRing);
  device.await(request.send().ignoreResult());

  testing::LeanLoop loop(driver, order.load, diskBytes, device.kickFd(0));
  loop.run(order.seconds / 10);
  auto figures = loop.run(order.seconds);
  device.reset();
  driver.checkStatuses();
  device.disconnect();
  int status = device.waitForExit();
  KJ_REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the device did not end well", status);
  return figures;
}

void report(const Order& order) {
  bool writes = order.load.write || order.qcow2;  // an image is marked as in use
  int flags = (writes ? O_RDWR : O_RDONLY) | (order.direct ? O_DIRECT : 0) | O_CLOEXEC;
  int fd;
  KJ_SYSCALL(fd = open(order.file.cStr(), flags), order.file);
  kj::AutoCloseFd disk(fd);
  uint64_t diskBytes = order.qcow2 ? IMAGE_BYTES : sizeOf(disk);
  testing::LeanFigures figures{};
  if (order.device) {
    figures = measureDevice(order, disk, diskBytes);
  } else {
    testing::pinTo(1);
    figures.iops = testing::measureBareLoop(disk, order.load, diskBytes, order.seconds);
  }
  printf("alone what=%s op=%s depth=%u size=%u iops=%.0f kicks_per_request=%.4f\n",
         order.device ? "device" : "loop", order.load.write ? "write" : "read", order.load.depth,
         order.load.bytes, figures.iops, figures.kicksPerRequest);
}

}  // namespace
}  // namespace troupe::blk

int main(int argc, char** argv) {
  KJ_IF_MAYBE (order, troupe::blk::parse(argc, argv)) {
    troupe::blk::report(*order);
    return 0;
  }
  fputs(
      "usage: blk_alone device|loop FILE [depth=N] [size=N] [seconds=S] [program=PATH] [write] "
      "[direct] [qcow2] [counters] [journal]\n",
      stderr);
  return 2;
}
