// The actor as shipped: the real executable in its real jail, with this test as troupe, broker and
// driver.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/jailed_blk.h"
#include "devices/blk/testing/scratch_disk.h"

namespace troupe::blk {
namespace {

using testing::filled;
using Jailed = testing::JailedBlk;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectors;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;
constexpr uint16_t QUEUES = testing::JAILED_QUEUES;

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

// Of a disk of 1 MiB whose file system has hardly any room: every write is answered, those without
// room with IOERR, and the disk can be read on.
void expectFullDiskGoesOn(int fd) {
  Jailed jailed(fd);
  jailed.attachAndActivate();
  auto ones = filled(BLOCK, 0x11);
  int failed = 0;
  for (uint64_t offset = 0; offset < MIB; offset += BLOCK) {
    auto sent = jailed.sendWrite(offset / 512, ones);
    failed += jailed.wait(jailed.device, sent).status == virtio::BLK_S_IOERR;
  }
  EXPECT_GT(failed, 0);
  auto sent = jailed.sendRead(MIB / 512 - 8, BLOCK);
  EXPECT_EQ(jailed.wait(jailed.device, sent).status, virtio::BLK_S_OK);
  EXPECT_TRUE(jailed.data(sent, BLOCK) == filled(BLOCK, 0));
  EXPECT_EQ(jailed.wait(jailed.device, jailed.sendFlush()).status, virtio::BLK_S_OK);
}

TEST(BlkJailedDisk, WriteToAFullTmpfsFails) {
  expectFullDiskGoesOn(testing::onFullFileSystem(MIB, 64 << 10));
}

// The disks of the next tests are the lab's (tests/lab/jailed_devices.sh); opened with `flags`.
kj::Maybe<kj::AutoCloseFd> openFromEnvironment(const char* variable, int flags) {
  const char* path = getenv(variable);
  if (path == nullptr) return nullptr;
  int fd;
  KJ_SYSCALL(fd = open(path, O_RDWR | O_CLOEXEC | flags), path);
  return kj::AutoCloseFd(fd);
}

class BlkJailedDiskOfTheLab: public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Flags, BlkJailedDiskOfTheLab, ::testing::Values(0, O_DIRECT));

TEST_P(BlkJailedDiskOfTheLab, WriteToAFullExt4Fails) {
  KJ_IF_MAYBE (fd, openFromEnvironment("TROUPE_TEST_FULL_DISK", GetParam())) {
    expectFullDiskGoesOn(*fd);
  } else {
    GTEST_SKIP() << "needs a full file system";
  }
}

// A block device with blocks of 4096 bytes that fails every write. Through the page cache it is the
// flush that learns of it.
TEST_P(BlkJailedDiskOfTheLab, WriteToAFailingDeviceFailsAtTheFlushAtTheLatest) {
  KJ_IF_MAYBE (fd, openFromEnvironment("TROUPE_TEST_FAILING_DEVICE", GetParam())) {
    Jailed jailed(*fd);
    jailed.attachAndActivate();
    auto ones = filled(BLOCK, 0x11);
    for (int i = 0; i < 10; i++) {
      auto written = jailed.wait(jailed.device, jailed.sendWrite(0, ones)).status;
      auto flushed = jailed.wait(jailed.device, jailed.sendFlush()).status;
      EXPECT_EQ(written, GetParam() == O_DIRECT ? virtio::BLK_S_IOERR : virtio::BLK_S_OK);
      EXPECT_EQ(flushed, GetParam() == O_DIRECT ? virtio::BLK_S_OK : virtio::BLK_S_IOERR);
    }
    EXPECT_EQ(jailed.wait(jailed.device, jailed.sendRead(8, BLOCK)).status, virtio::BLK_S_OK);
  } else {
    GTEST_SKIP() << "needs a failing block device";
  }
}

// Less than its block can be moved through the page cache alone.
TEST_P(BlkJailedDiskOfTheLab, HalfABlockOfADeviceWith4096) {
  KJ_IF_MAYBE (fd, openFromEnvironment("TROUPE_TEST_FAILING_DEVICE", GetParam())) {
    Jailed jailed(*fd);
    jailed.attachAndActivate();
    EXPECT_EQ(jailed.wait(jailed.device, jailed.sendRead(1, 512)).status,
              GetParam() == O_DIRECT ? virtio::BLK_S_IOERR : virtio::BLK_S_OK);
    EXPECT_EQ(jailed.wait(jailed.device, jailed.sendRead(8, BLOCK)).status, virtio::BLK_S_OK);
  } else {
    GTEST_SKIP() << "needs a block device";
  }
}

// The device is larger than it was, and so is the driver's disk once its actor was told.
TEST_P(BlkJailedDiskOfTheLab, ABlockDeviceGrows) {
  KJ_IF_MAYBE (fd, openFromEnvironment("TROUPE_TEST_GROWING_DEVICE", GetParam())) {
    uint64_t before;
    KJ_SYSCALL(ioctl(*fd, BLKGETSIZE64, &before));
    Jailed jailed(*fd);
    jailed.attachAndActivate();
    auto ones = filled(BLOCK, 0x11);
    auto writeBehind = [&] {
      return jailed.wait(jailed.device, jailed.sendWrite(before / 512, ones)).status;
    };
    EXPECT_EQ(writeBehind(), virtio::BLK_S_IOERR);
    EXPECT_ANY_THROW(jailed.device.diskSize(before + MIB)) << "the device is no larger yet";
    if (truncate(getenv("TROUPE_TEST_GROWING_FILE"), before + MIB) != 0 ||
        ioctl(*fd, LOOP_SET_CAPACITY) != 0) {
      GTEST_SKIP() << "only root makes a device larger";
    }
    jailed.device.diskSize(before + MIB);
    EXPECT_EQ(jailed.device.host.configChanges.size(), 1u);
    EXPECT_EQ(writeBehind(), virtio::BLK_S_OK);
    EXPECT_EQ(jailed.wait(jailed.device, jailed.sendFlush()).status, virtio::BLK_S_OK);
    auto read = jailed.sendRead((before + MIB) / 512 - 8, BLOCK);
    EXPECT_EQ(jailed.wait(jailed.device, read).status, virtio::BLK_S_OK);
    EXPECT_EQ(jailed.differences(sandbox::Stage::RUN), "");
  } else {
    GTEST_SKIP() << "needs a block device that grows";
  }
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
