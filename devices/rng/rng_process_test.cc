// troupe-rng in its jail, with this test as broker and guest.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

#include "devices/rng/rng_engine.h"
#include "devices/rng/rng_profile.h"
#include "devices/virtio/testing/process_bench.h"

namespace troupe::rng {
namespace {

using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::ProcessBench;
using virtio::testing::writable;

constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;

struct Bench {
  FakeRam ram;
  ProcessBench device{ram, RNG_PROFILE, "troupe-rng", /*queueCount=*/1};

  void attach() {
    device.attach();
    device.describe();  // behind it the fds that came with attach() are closed
  }
  kj::String differences(sandbox::Stage stage) { return kj::strArray(device.attest(stage), "\n"); }
};

TEST(RngProcess, JailIsAsTheProfileSaysInEachStage) {
  Bench bench;
  bench.attach();
  EXPECT_EQ(bench.differences(sandbox::Stage::READY), "");
  FakeDriver driver(bench.ram, 8);
  bench.device.activate(FEATURES, {&driver});
  EXPECT_EQ(bench.differences(sandbox::Stage::RUN), "");
}

TEST(RngProcess, ServesRequestsResetsAndDriversAgain) {
  Bench bench;
  bench.attach();
  for (int round = 0; round < 3; round++) {
    FakeDriver driver(bench.ram, 8);
    bench.device.activate(FEATURES, {&driver});
    driver.wantInterrupts(true);
    uint64_t address = bench.ram.allocate(8192);
    driver.addIndirect({writable(address, 4096), writable(address + 4096, 4096)});
    EXPECT_EQ(bench.device.waitForUsed(0, driver).written, 8192);
    bench.device.waitForInterrupt(0);
    bench.device.reset();
  }
}

TEST(RngProcess, RNG01_GigabytesAreAnsweredWithABoundedAmount) {
  Bench bench;
  bench.attach();
  FakeDriver driver(bench.ram, 8);
  bench.device.activate(FEATURES, {&driver});
  for (int i = 0; i < 8; i++)
    driver.add({writable(FakeRam::MIB, 3 * FakeRam::MIB)});
  for (int i = 0; i < 8; i++) {
    EXPECT_EQ(bench.device.waitForUsed(0, driver).written, MAX_BYTES_PER_REQUEST);
  }
}

// A vCPU that makes the buffers available again the moment they are used may keep the device at
// work for good. The broker is heard all the same, so that its reset needs no deadline.
TEST(RngProcess, VQ04_RingThatNeverRunsEmptyDoesNotStarveTheBroker) {
  Bench bench;
  bench.attach();
  for (int round = 0; round < 20; round++) {
    FakeDriver driver(bench.ram, 8);
    for (uint16_t i = 0; i < driver.size(); i++) {
      driver.writeDescriptor(i, {FakeRam::MIB, 64, virtio::DESC_F_WRITE, 0});
      driver.writeAvailable(i, i);
    }
    std::atomic<bool> over{false};
    std::thread vcpu([&] {
      while (!over) {
        uint16_t next = driver.usedIndex() + driver.size();
        driver.writeAvailableIndex(next);
        driver.writeUsedEvent(next - 1);  // an interrupt per batch
        eventfd_write(bench.device.kickFd(0), 1);
      }
    });
    KJ_DEFER({
      over = true;
      vcpu.join();
    });
    bench.device.activate(FEATURES, {&driver});
    while (driver.usedIndex() <= driver.size())
      bench.device.settle();
    bench.device.reset();
    EXPECT_EQ(bench.device.host.resetsAsked, 0);
  }
}

// The regions lie one behind the other in the file, and so might their mappings.
TEST(RngProcess, VQ06_BufferAcrossRegionsOrIntoTheHoleNeedsAReset) {
  constexpr uint64_t MIB = FakeRam::MIB;
  for (uint64_t address : {MIB - 8, 2 * MIB - 8, 4 * MIB - 8, 5 * MIB - 8}) {
    FakeRam ram({{0, MIB}, {MIB, MIB}, {4 * MIB, MIB}});
    ProcessBench device(ram, RNG_PROFILE, "troupe-rng", /*queueCount=*/1);
    device.attach();
    FakeDriver driver(ram, 8);
    device.activate(FEATURES, {&driver});
    driver.add({writable(address, 16)});
    device.kick(0);
    device.waitUntil([&] { return device.host.resetsAsked == 1; });
    EXPECT_EQ(driver.usedIndex(), 0);
    device.reset();
    FakeDriver again(ram, 8);
    device.activate(FEATURES, {&again});
    again.add({writable(4 * MIB, 16)});
    EXPECT_EQ(device.waitForUsed(0, again).written, 16);
  }
}

TEST(RngProcess, BrokenRingAsksForAResetAndTheProcessLives) {
  Bench bench;
  bench.attach();
  FakeDriver driver(bench.ram, 8);
  bench.device.activate(FEATURES, {&driver});
  driver.makeAvailable(0xffff);
  bench.device.kick(0);
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
  bench.device.reset();
  bench.device.describe();
}

// A refused call is an answer, under the filter too: throwing needs no system call of its own.
TEST(RngProcess, WrongCallsAreRefusedAndTheProcessLives) {
  Bench bench;
  bench.attach();
  EXPECT_ANY_THROW(bench.device.attach());
  EXPECT_ANY_THROW(bench.device.activate(1, {}));
  FakeDriver driver(bench.ram, 8);
  bench.device.activate(FEATURES, {&driver});
  EXPECT_ANY_THROW(bench.device.activate(FEATURES, {&driver}));
  bench.device.describe();
}

TEST(RngProcess, EndsWhenTheBrokerIsGone) {
  Bench bench;
  bench.attach();
  FakeDriver driver(bench.ram, 8);
  bench.device.activate(FEATURES, {&driver});
  bench.device.disconnect();
  int status = bench.device.waitForExit();
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace troupe::rng
