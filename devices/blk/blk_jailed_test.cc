// The actor as shipped: the real executable in its real jail, with this test as troupe, broker and
// driver.
#include <capnp/message.h>
#include <dirent.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/wait.h>

#include <fstream>
#include <string>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/virtio/testing/process_bench.h"

namespace troupe::blk {
namespace {

using testing::filled;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectors;
using virtio::testing::FakeDriver;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;
constexpr uint16_t QUEUES = 2;

// Starts the actor with a disk of `medium`; two queues, jail on.
struct Jailed: testing::BlkDriver {
  explicit Jailed(int disk, bool readOnly = false)
      : fds{HandedFd{"disk", 0, disk}},
        device(ram, BLK_PROFILE, "troupe-blk", QUEUES, fds, configure(readOnly)) {}

  void attachAndActivate() {
    device.attach();
    EXPECT_EQ(differences(sandbox::Stage::READY), "");
    activate();
  }
  void activate() {
    drivers.clear();
    for (int i = 0; i < QUEUES; i++)
      drivers.add(kj::heap<FakeDriver>(ram, 256));
    device.activate(testing::FEATURES, {drivers[0], drivers[1]});
  }
  std::string differences(sandbox::Stage stage) {
    std::string all;
    for (auto& difference : device.attest(stage))
      all += std::string(difference.cStr()) + "\n";
    return all;
  }

 private:
  capnp::MallocMessageBuilder message;
  HandedFd fds[1];

  kj::Maybe<capnp::AnyPointer::Reader> configure(bool readOnly) {
    auto config = message.initRoot<BlkConfig>();
    config.setId("jailed");
    config.setQueues(QUEUES);
    config.setReadOnly(readOnly);
    return message.getRoot<capnp::AnyPointer>().asReader();
  }

 public:
  ProcessBench device;
};

class BlkJailed: public ::testing::TestWithParam<Medium> {
 protected:
  void SetUp() override {
    if (!testing::isAvailable(GetParam())) GTEST_SKIP() << "/var/tmp is in memory";
  }
};

INSTANTIATE_TEST_SUITE_P(Media, BlkJailed,
                         ::testing::Values(Medium::MEMORY, Medium::CACHED, Medium::DIRECT));

// Each way to the disk under the filters, also after a reset, and the process as its profile says.
TEST_P(BlkJailed, ReadsWritesAndFlushesThroughResets) {
  ScratchDisk file(GetParam(), 4 * MIB);
  file.dropCache();
  Jailed jailed(file.fd());
  jailed.attachAndActivate();
  for (int round = 0; round < 3; round++) {
    for (uint16_t queue = 0; queue < QUEUES; queue++) {
      uint64_t sector = (round * QUEUES + queue) * 64;
      auto read = jailed.sendRead(sector, 2 * BLOCK, queue);
      EXPECT_EQ(jailed.wait(jailed.device, read, queue).status, virtio::BLK_S_OK);
      EXPECT_TRUE(jailed.data(read, 2 * BLOCK) == sectors(sector, 16));
      auto ones = filled(2 * BLOCK, 0x11);
      auto write = jailed.sendWrite(sector, ones, queue);
      EXPECT_EQ(jailed.wait(jailed.device, write, queue).status, virtio::BLK_S_OK);
      auto flush = jailed.sendFlush(queue);
      EXPECT_EQ(jailed.wait(jailed.device, flush, queue).status, virtio::BLK_S_OK);
      EXPECT_TRUE(file.contents(sector * 512, ones.size()) == ones);
    }
    EXPECT_EQ(jailed.differences(sandbox::Stage::RUN), "");
    jailed.device.reset();
    jailed.activate();
  }
  jailed.device.disconnect();
  int status = jailed.device.waitForExit();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_P(BlkJailed, BuffersAtAnyAddress) {
  ScratchDisk file(GetParam(), MIB);
  Jailed jailed(file.fd());
  jailed.attachAndActivate();
  virtio::testing::Buffer data = virtio::testing::writable(jailed.allocate(128 << 10) + 3, BLOCK);
  auto sent = jailed.send(virtio::BLK_T_IN, 8, kj::arrayPtr(&data, 1));
  EXPECT_EQ(jailed.wait(jailed.device, sent).status, virtio::BLK_S_OK);
  EXPECT_TRUE(jailed.data(sent, BLOCK) == sectors(8, 8));
}

TEST_P(BlkJailed, RST01_ResetWhileTheRingIsFull) {
  ScratchDisk file(GetParam(), 4 * MIB);
  file.dropCache();
  Jailed jailed(file.fd());
  jailed.attachAndActivate();
  for (int i = 0; i < 85; i++)
    jailed.sendRead(i * 64, BLOCK);
  jailed.device.kick(0);
  jailed.device.reset();
  jailed.activate();
  auto sent = jailed.sendRead(0, BLOCK);
  EXPECT_EQ(jailed.wait(jailed.device, sent).status, virtio::BLK_S_OK);
}

TEST_P(BlkJailed, ReadOnlyFileIsServedReadOnly) {
  ScratchDisk file(GetParam(), MIB);
  auto reading = file.openReadOnly();
  Jailed jailed(reading, /*readOnly=*/true);
  jailed.attachAndActivate();
  EXPECT_EQ(jailed.wait(jailed.device, jailed.sendWrite(0, filled(BLOCK, 1))).status,
            virtio::BLK_S_IOERR);
  EXPECT_EQ(jailed.wait(jailed.device, jailed.sendFlush()).status, virtio::BLK_S_OK);
  EXPECT_EQ(jailed.wait(jailed.device, jailed.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
}

TEST(BlkJailedStart, AFileThatIsNoDiskEndsTheStart) {
  ScratchDisk file(Medium::MEMORY, 1000);
  Jailed jailed(file.fd());
  int status = jailed.device.waitForExit();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
}

// How often the queues' threads of a process slept, by its host pid.
uint64_t timesSlept(pid_t pid) {
  uint64_t sum = 0;
  auto folder = kj::str("/proc/", pid, "/task");
  DIR* tasks = opendir(folder.cStr());
  KJ_REQUIRE(tasks != nullptr);
  KJ_DEFER(closedir(tasks));
  while (dirent* entry = readdir(tasks)) {
    std::ifstream status(kj::str(folder, "/", entry->d_name, "/status").cStr());
    std::string word;
    if (!(status >> word >> word) || word.find("blk-q") != 0) continue;
    while (status >> word) {
      uint64_t count = 0;
      if (word == "voluntary_ctxt_switches:" && status >> count) sum += count;
    }
  }
  return sum;
}

TEST(BlkJailedStart, AnIdleDeviceDoesNotWakeUp) {
  ScratchDisk file(Medium::MEMORY, MIB);
  Jailed jailed(file.fd());
  jailed.attachAndActivate();
  for (int i = 0; i < 100; i++)
    jailed.wait(jailed.device, jailed.sendRead(i, 512));
  jailed.device.settle();  // far longer than it may spin
  uint64_t before = timesSlept(jailed.device.child().pid());
  for (int i = 0; i < 5; i++)
    jailed.device.settle();
  EXPECT_EQ(timesSlept(jailed.device.child().pid()), before);
  EXPECT_GT(before, QUEUES);
}

}  // namespace
}  // namespace troupe::blk
