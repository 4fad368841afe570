// The actor as shipped, killed again and again amid requests: its successors finish each of them
// once, with this test as troupe, broker and driver. TROUPE_TEST_KILLS: how often, 100 unless said.
#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <vector>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::blk {
namespace {

using testing::Medium;
using testing::ScratchDisk;
using testing::sectorByte;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint32_t BLOCK = 4096;
constexpr uint64_t BLOCKS = 1024;
constexpr uint32_t DEPTH = 32;
constexpr uint64_t JOURNAL_BYTES = 1 << 20;

int kills() {
  const char* said = getenv("TROUPE_TEST_KILLS");
  return said == nullptr ? 100 : atoi(said);
}

struct Request {
  uint64_t block;
  bool isWrite;
  kj::byte value;  // that it writes
  uint64_t data;
  uint64_t status;
};

// A driver that knows what each block holds, and has one request for a block at a time.
class CheckingDriver: public testing::BlkDriver {
 public:
  explicit CheckingDriver(uint32_t seed) : random(seed), content(BLOCKS), busy(BLOCKS) {
    drivers.add(kj::heap<FakeDriver>(ram, 256));
    for (uint32_t i = 0; i < DEPTH; i++)
      slots.push_back(allocate(BLOCK));
    for (uint64_t block = 0; block < BLOCKS; block++)
      content[block] = FRESH;
  }

  // Keeps DEPTH requests on their way.
  void fill() {
    while (!slots.empty()) {
      uint64_t block = random() % BLOCKS;
      if (busy[block]) continue;
      busy[block] = true;
      Request request{block, random() % 2 == 0, kj::byte(random()), slots.back(), 0};
      slots.pop_back();
      memset(ram.bytes(request.data, BLOCK).begin(), request.isWrite ? request.value : 0xee, BLOCK);
      Buffer data{request.data, BLOCK, !request.isWrite};
      auto type = request.isWrite ? virtio::BLK_T_OUT : virtio::BLK_T_IN;
      auto sent = send(type, block * (BLOCK / 512), kj::arrayPtr(&data, 1));
      request.status = sent.status;
      ASSERT_TRUE(underWay.emplace(sent.head, request).second);
    }
  }

  // Takes what has been answered. How many.
  uint64_t check() {
    uint64_t count = 0;
    for (;;) {
      auto used = driver().takeUsed();
      if (used == nullptr) break;
      auto found = underWay.find(KJ_ASSERT_NONNULL(used).head);
      if (found == underWay.end()) {
        ADD_FAILURE() << "answered twice";
        break;
      }
      checkOne(found->second);
      busy[found->second.block] = false;
      slots.push_back(found->second.data);
      underWay.erase(found);
      ++count;
    }
    answered += count;
    return count;
  }

  bool isIdle() const { return underWay.empty(); }
  uint64_t totalAnswered() const { return answered; }

  void checkFile(const ScratchDisk& file) {
    for (uint64_t block = 0; block < BLOCKS; block++) {
      auto bytes = file.contents(block * BLOCK, BLOCK);
      EXPECT_TRUE(holds(bytes, block)) << block;
    }
  }

 private:
  static constexpr int FRESH = -1;  // as the file was made

  void checkOne(const Request& request) {
    EXPECT_EQ(ram.bytes(request.status, 1)[0], virtio::BLK_S_OK);
    if (request.isWrite) {
      content[request.block] = request.value;
    } else {
      EXPECT_TRUE(holds(ram.bytes(request.data, BLOCK), request.block)) << request.block;
    }
  }

  bool holds(kj::ArrayPtr<const kj::byte> bytes, uint64_t block) const {
    for (uint32_t i = 0; i < BLOCK; i++) {
      kj::byte wanted =
          content[block] == FRESH ? sectorByte(block * (BLOCK / 512) + i / 512) : content[block];
      if (bytes[i] != wanted) return false;
    }
    return true;
  }

  std::mt19937 random;
  std::vector<int> content;
  std::vector<bool> busy;
  std::vector<uint64_t> slots;
  std::map<uint32_t, Request> underWay;
  uint64_t answered = 0;
};

// One process of the device.
class Life {
 public:
  Life(CheckingDriver& driver, int disk, int journal, bool isFirst)
      : witness(makePipe()),
        fds{HandedFd{"disk", 0, disk}, HandedFd{"journal", 0, journal},
            HandedFd{"witness", 0, witness.write}},
        process(driver.ram, BLK_PROFILE, "troupe-blk", 1, fds, configure()) {
    witness.write = nullptr;
    process.attach();
    auto request = process.activateRequest(testing::FEATURES, {&driver.driver()});
    request.setResumed(!isFirst);
    process.await(request.send().ignoreResult());
  }

  ProcessBench& device() { return process; }

  // Returns once the last request it had in the kernel has ended.
  void kill() {
    process.child().kill();
    process.waitForExit();
    pollfd end{witness.read, POLLIN, 0};
    KJ_ASSERT(poll(&end, 1, 10000) == 1 && (end.revents & POLLHUP), "its requests do not end");
  }

 private:
  struct Pipe {
    kj::AutoCloseFd read, write;
  };
  static Pipe makePipe() {
    int fds[2];
    KJ_SYSCALL(pipe2(fds, O_CLOEXEC | O_NONBLOCK));
    return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
  }
  kj::Maybe<capnp::AnyPointer::Reader> configure() {
    message.initRoot<BlkConfig>().setId("killed");
    return message.getRoot<capnp::AnyPointer>().asReader();
  }

  Pipe witness;
  capnp::MallocMessageBuilder message;
  HandedFd fds[3];
  ProcessBench process;
};

class BlkKilled: public ::testing::TestWithParam<Medium> {};
INSTANTIATE_TEST_SUITE_P(Media, BlkKilled,
                         ::testing::Values(Medium::MEMORY, Medium::CACHED, Medium::DIRECT));

TEST_P(BlkKilled, EachRequestIsAnsweredOnceWhereverItIsKilled) {
  if (!testing::isAvailable(GetParam())) GTEST_SKIP() << "/var/tmp is in memory";
  ScratchDisk file(GetParam(), BLOCKS * BLOCK);
  if (GetParam() == Medium::CACHED) file.dropCache();
  auto journal = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  CheckingDriver driver(seed);
  std::mt19937 random(seed + 1);
  using Clock = std::chrono::steady_clock;
  std::vector<double> stallsMs;

  for (int life = 0; life <= kills() && !HasFailure(); life++) {
    auto begun = Clock::now();
    Life process(driver, file.fd(), journal.writable, life == 0);
    bool isLast = life == kills();
    // Every second life ends at any time, the others amid their answers however slow they are.
    uint64_t wanted = life % 2 == 0 ? 0 : driver.totalAnswered() + 1 + random() % 300;
    bool first = true;
    auto until = Clock::now() + std::chrono::microseconds(random() % 3000);
    auto deadline = Clock::now() + std::chrono::seconds(60);
    auto goesOn = [&] {
      if (isLast) return !driver.isIdle();
      return wanted > 0 ? driver.totalAnswered() < wanted : Clock::now() < until;
    };
    while (!HasFailure() && goesOn()) {
      if (!isLast) driver.fill();
      if (driver.driver().shouldKick()) process.device().kick(0);
      if (driver.check() > 0 && first && life > 0) {
        stallsMs.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begun).count());
        first = false;
      }
      ASSERT_LT(Clock::now(), deadline) << "a request is not answered";
    }
    process.kill();
  }
  driver.checkFile(file);
  EXPECT_GE(driver.totalAnswered(), uint64_t(kills() / 2));
  std::sort(stallsMs.begin(), stallsMs.end());
  if (stallsMs.size() > 1) {
    std::cout << driver.totalAnswered() << " answers; launch to first answer p50 "
              << stallsMs[stallsMs.size() / 2] << " ms, p99 "
              << stallsMs[stallsMs.size() * 99 / 100] << " ms\n";
  }
}

}  // namespace
}  // namespace troupe::blk
