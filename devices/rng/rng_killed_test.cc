// The actor as shipped, killed again and again amid requests: its successors answer each of them
// once, with this test as troupe, broker and driver. How often: devices/virtio/testing/kills.h.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <chrono>
#include <cstring>
#include <iostream>
#include <map>
#include <random>
#include <vector>

#include "devices/rng/rng_profile.h"
#include "devices/virtio/testing/kills.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::rng {
namespace {

using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
constexpr uint16_t QUEUE_SIZE = 8;
constexpr uint32_t PLACE_BYTES = 8192;
constexpr uint32_t MOST_BYTES = 6000;

// A driver that knows which of its buffers the device has, and how much of each it is to fill.
class CheckingDriver {
 public:
  explicit CheckingDriver(uint32_t seed) : random(seed) {
    for (uint16_t i = 0; i < QUEUE_SIZE; i++)
      idle.push_back(ram.allocate(PLACE_BYTES));
  }

  // All that lies idle is on its way.
  void fill(ProcessBench& device) {
    for (; !idle.empty(); idle.pop_back()) {
      uint64_t address = idle.back();
      auto bytes = ram.bytes(address, PLACE_BYTES);
      memset(bytes.begin(), 0, bytes.size());
      uint32_t size = 1 + random() % MOST_BYTES;
      uint16_t head = driver.add({virtio::testing::writable(address, size)});
      ASSERT_TRUE(underWay.emplace(head, Asked{address, size}).second);
    }
    if (driver.shouldKick()) device.kick(0);
  }

  void check() {
    for (;;) {
      auto used = driver.takeUsed();
      KJ_IF_MAYBE (one, used) {
        auto found = underWay.find(one->head);
        ASSERT_TRUE(found != underWay.end()) << "answered twice";
        look(found->second, one->written);
        idle.push_back(found->second.address);
        underWay.erase(found);
        ++answered;
      } else {
        return;
      }
    }
  }

  bool isIdle() const { return underWay.empty(); }

  FakeRam ram{4 * FakeRam::MIB};
  FakeDriver driver{ram, QUEUE_SIZE};
  uint64_t answered = 0;

 private:
  struct Asked {
    uint64_t address;
    uint32_t size;
  };

  void look(const Asked& asked, uint32_t written) {
    ASSERT_EQ(written, asked.size);
    auto bytes = ram.bytes(asked.address, PLACE_BYTES);
    uint32_t zeroes = 0;
    for (uint32_t i = 0; i < PLACE_BYTES; i++) {
      zeroes += i < written && bytes[i] == 0;
      ASSERT_TRUE(i < written || bytes[i] == 0) << "beyond the buffer";
    }
    // One in 256 is to be expected.
    if (written >= 256) {
      EXPECT_LT(zeroes, written / 8) << "not filled";
    }
  }

  std::mt19937 random;
  std::vector<uint64_t> idle;
  std::map<uint32_t, Asked> underWay;  // by head
};

// One process of the device.
class Life {
 public:
  Life(CheckingDriver& guest, int journal, bool isFirst)
      : fds{HandedFd{"journal", 0, journal}}, device(guest.ram, RNG_PROFILE, "troupe-rng", 1, fds) {
    device.attach();
    auto request = device.activateRequest(FEATURES, {&guest.driver});
    request.setResumed(!isFirst);
    device.await(request.send().ignoreResult());
  }
  void kill() {
    device.child().kill();
    device.waitForExit();
    EXPECT_EQ(device.host.resetsAsked, 0u);
  }

 private:
  HandedFd fds[1];

 public:
  ProcessBench device;
};

TEST(RngKilled, EachRequestIsAnsweredOnceWhereverItIsKilled) {
  auto journal = sandbox::makeSharedMemory("journals", 1 << 20);
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  CheckingDriver guest(seed);
  std::mt19937 random(seed + 1);
  using Clock = std::chrono::steady_clock;
  virtio::testing::Kills kills;
  while (!::testing::Test::HasFailure() && kills.takeOne()) {
    Life life(guest, journal.writable, kills.count() == 1);
    auto until = Clock::now() + std::chrono::microseconds(random() % 1000);
    while (!::testing::Test::HasFailure() && Clock::now() < until) {
      guest.fill(life.device);
      guest.check();
    }
    life.kill();
    guest.check();
  }
  Life last(guest, journal.writable, false);
  last.device.waitUntil([&] {
    guest.check();
    return ::testing::Test::HasFailure() || guest.isIdle();
  });
  EXPECT_GT(guest.answered, 0u);
  std::cout << kills.count() << " kills, " << guest.answered << " requests answered\n";
}

}  // namespace
}  // namespace troupe::rng
