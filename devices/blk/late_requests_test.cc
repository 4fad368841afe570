// Requests that outlive the process which asked for them, above a disk that takes its time: once
// the witness has said that they have ended, none of them touches the disk or the guest's memory
// any more. Needs a device whose requests land late, and another one that leads to the same blocks
// at once.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/virtio/queue_counters.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::blk {
namespace {

using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint32_t BLOCK = 4096;
constexpr uint32_t REQUESTS = 16;  // of each kind
constexpr uint32_t SECTORS = BLOCK / 512;
constexpr uint64_t KEPT_BYTES = 1 << 20;
constexpr kj::byte OLD = 0x11, WRITTEN = 0x55, NEWER = 0xaa, OF_THE_GUEST = 0x77;

kj::AutoCloseFd open(const char* path) {
  int fd;
  KJ_SYSCALL(fd = ::open(path, O_RDWR | O_DIRECT | O_CLOEXEC), path);
  return kj::AutoCloseFd(fd);
}

// The first blocks of a device: those that are written, then those that are read.
class Blocks {
 public:
  explicit Blocks(int fd)
      : fd(fd), memory(static_cast<kj::byte*>(aligned_alloc(BLOCK, SIZE)), free) {}

  void fill(kj::byte with) {
    memset(memory.get(), with, SIZE);
    KJ_ASSERT(pwrite(fd, memory.get(), SIZE, 0) == ssize_t(SIZE));
  }
  bool areAll(kj::byte what) {
    KJ_ASSERT(pread(fd, memory.get(), SIZE, 0) == ssize_t(SIZE));
    for (size_t i = 0; i < SIZE; i++) {
      if (memory.get()[i] != what) return false;
    }
    return true;
  }

 private:
  static constexpr size_t SIZE = 2 * REQUESTS * BLOCK;
  int fd;
  std::unique_ptr<kj::byte, decltype(&free)> memory;
};

struct Driver: public testing::BlkDriver {
  Driver() { drivers.add(kj::heap<virtio::testing::FakeDriver>(ram, 256)); }
};

// How many requests of the first queue the process has taken and not returned.
uint64_t inFlight(int counters) {
  constexpr off_t PLACE =
      offsetof(virtio::CounterPage, queues) + offsetof(virtio::CounterSlot, inFlight);
  uint64_t count;
  KJ_ASSERT(pread(counters, &count, sizeof(count), PLACE) == sizeof(count));
  return count;
}

// Whether the process was killed, and has been reaped, while requests of it were under way.
bool diesBeforeItsRequests(int late, int undelayed) {
  Blocks blocks(undelayed);
  blocks.fill(OLD);
  Driver driver;
  kj::Vector<testing::BlkDriver::Sent> reads;
  for (uint32_t i = 0; i < REQUESTS; i++) {
    driver.sendWrite(i * SECTORS, testing::filled(BLOCK, WRITTEN));
    reads.add(driver.sendRead((REQUESTS + i) * SECTORS, BLOCK));
  }
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  kj::AutoCloseFd witness(ends[0]), theirs(ends[1]);
  auto counters = sandbox::makeSharedMemory("journals", KEPT_BYTES);
  capnp::MallocMessageBuilder message;
  message.initRoot<BlkConfig>().setId("late");
  HandedFd fds[] = {{"disk", 0, late}, {"witness", 0, theirs}, {"journal", 0, counters.writable}};
  pollfd end = {witness, POLLIN, 0};
  bool wereUnderWay;
  {
    ProcessBench process(driver.ram, BLK_PROFILE, "troupe-blk", 1, fds,
                         message.getRoot<capnp::AnyPointer>().asReader());
    theirs = nullptr;
    process.attach();
    process.activate(testing::FEATURES, {&driver.driver()});
    process.kick(0);
    process.waitUntil([&] { return inFlight(counters.readOnly) == 2 * REQUESTS; });
    process.child().kill();
    process.waitForExit();
    wereUnderWay = poll(&end, 1, 0) == 0;
  }
  EXPECT_EQ(poll(&end, 1, 60000), 1) << "its requests do not end";
  EXPECT_TRUE(end.revents & POLLHUP);
  // What its successor and the driver do next.
  blocks.fill(NEWER);
  for (auto& read : reads)
    memset(driver.data(read, BLOCK).begin(), OF_THE_GUEST, BLOCK);
  sleep(1);  // twice as long as a request of the device takes
  EXPECT_TRUE(blocks.areAll(NEWER)) << "a write landed late";
  for (auto& read : reads) {
    auto data = driver.data(read, BLOCK);
    EXPECT_EQ(std::count(data.begin(), data.end(), OF_THE_GUEST), BLOCK) << "a read landed late";
  }
  return wereUnderWay;
}

TEST(BlkLateRequests, NoneLandsOnceTheWitnessHasSaidThatTheyHaveEnded) {
  const char* late = getenv("TROUPE_TEST_LATE_DEVICE");
  const char* undelayed = getenv("TROUPE_TEST_UNDELAYED_DEVICE");
  if (late == nullptr || undelayed == nullptr) GTEST_SKIP() << "needs a disk that takes its time";
  auto slow = open(late), fast = open(undelayed);
  // On a machine that is too slow for it a process may end behind its requests.
  bool hasOutlived = false;
  for (int attempt = 0; attempt < 10 && !hasOutlived && !HasFailure(); attempt++)
    hasOutlived = diesBeforeItsRequests(slow, fast);
  EXPECT_TRUE(hasOutlived) << "no request outlived its process: this test has shown nothing";
}

}  // namespace
}  // namespace troupe::blk
