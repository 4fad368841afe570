// A volatile disk, and one that grows while it is served, in the actor as shipped: the real
// executable in its real jail, with this test as troupe, broker and driver.
#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/qcow2/testing/qemu_img.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::blk {
namespace {

using qcow2::testing::QemuFolder;
using testing::filled;
using virtio::testing::FakeDriver;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;
constexpr uint16_t QUEUES = 2;
constexpr uint64_t OVERLAY_BYTES = 1ull << 40;  // of addresses

struct Setting {
  BlkConfig::Format format = BlkConfig::Format::RAW;
  uint64_t volatileBytes = 0;
  const char* backing = nullptr;  // raw
  int flags = 0;
};

struct Jailed: testing::BlkDriver {
  Jailed(QemuFolder& folder, kj::StringPtr name, const Setting& setting)
      : isVolatile(setting.volatileBytes > 0),
        overlay(sandbox::makeSharedMemory("disk-overlay", OVERLAY_BYTES)),
        fds(handed(folder, name, setting)),
        device(ram, BLK_PROFILE, "troupe-blk", QUEUES, fds, configure(name, setting)) {}

  void attachAndActivate() {
    device.attach();
    EXPECT_EQ(differences(sandbox::Stage::READY), "");
    for (int i = 0; i < QUEUES; i++)
      drivers.add(kj::heap<FakeDriver>(ram, 256));
    device.activate(testing::FEATURES | virtio::BLK_F_DISCARD, {drivers[0], drivers[1]});
  }
  std::string differences(sandbox::Stage stage) {
    std::string all;
    for (auto& difference : device.attest(stage))
      all += std::string(difference.cStr()) + "\n";
    return all;
  }
  uint8_t write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes, uint16_t queue = 0) {
    return wait(device, sendWrite(offset / 512, bytes, queue), queue).status;
  }
  uint8_t flush(uint16_t queue = 0) { return wait(device, sendFlush(queue), queue).status; }
  uint8_t discard(uint64_t offset, uint64_t bytes) {
    virtio::BlkRange range{offset / 512, uint32_t(bytes / 512), 0};
    auto buffer = driver().readableBuffer(kj::arrayPtr(&range, 1).asBytes());
    return wait(device, send(virtio::BLK_T_DISCARD, 0, kj::arrayPtr(&buffer, 1))).status;
  }
  kj::Array<kj::byte> read(uint64_t offset, uint32_t bytes, uint16_t queue = 0) {
    auto sent = sendRead(offset / 512, bytes, queue);
    EXPECT_EQ(wait(device, sent, queue).status, virtio::BLK_S_OK);
    return kj::heapArray<kj::byte>(data(sent, bytes));
  }
  uint64_t memoryInUse() {
    struct stat info;
    KJ_SYSCALL(fstat(overlay.writable, &info));
    return info.st_blocks * 512;
  }
  void end() {
    device.disconnect();
    int status = device.waitForExit();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }

 private:
  const bool isVolatile;
  sandbox::SharedMemory overlay;
  kj::Vector<kj::AutoCloseFd> files;
  capnp::MallocMessageBuilder message;
  kj::Array<HandedFd> fds;

  int open(QemuFolder& folder, kj::StringPtr name, int flags) {
    int fd;
    KJ_SYSCALL(fd = ::open(folder.path(name).cStr(), flags | O_CLOEXEC), name);
    return files.add(kj::AutoCloseFd(fd));
  }
  kj::Array<HandedFd> handed(QemuFolder& folder, kj::StringPtr name, const Setting& setting) {
    kj::Vector<HandedFd> all;
    int mode = isVolatile ? O_RDONLY : O_RDWR;
    all.add(HandedFd{"disk", 0, open(folder, name, mode | setting.flags)});
    if (setting.backing != nullptr) {
      all.add(HandedFd{"backing", 0, open(folder, setting.backing, O_RDONLY)});
    }
    if (isVolatile) all.add(HandedFd{"overlay", 0, overlay.writable});
    return all.releaseAsArray();
  }
  kj::Maybe<capnp::AnyPointer::Reader> configure(kj::StringPtr name, const Setting& setting) {
    auto config = message.initRoot<BlkConfig>();
    config.setId("modes");
    config.setQueues(QUEUES);
    config.setFormat(setting.format);
    config.setVolatileBytes(setting.volatileBytes);
    if (setting.format == BlkConfig::Format::QCOW2) config.setPath(name);
    if (setting.backing != nullptr) {
      auto backing = config.initBacking(1);
      backing[0].setPath(setting.backing);
      backing[0].setFormat(BlkConfig::Format::RAW);
    }
    return message.getRoot<capnp::AnyPointer>().asReader();
  }

 public:
  ProcessBench device;
};

struct stat statOf(QemuFolder& folder, kj::StringPtr name) {
  struct stat info;
  KJ_SYSCALL(stat(folder.path(name).cStr(), &info));
  return info;
}

// Writes, reads, discards; then the file is as it was, to the byte and the time of its last change.
void serveVolatile(QemuFolder& folder, kj::StringPtr name, const Setting& setting) {
  auto bytes = folder.load(name);
  auto before = statOf(folder, name);
  Jailed jailed(folder, name, setting);
  jailed.attachAndActivate();
  EXPECT_TRUE(jailed.read(MIB, BLOCK) == filled(BLOCK, 0x41));
  for (uint16_t queue = 0; queue < QUEUES; queue++) {
    EXPECT_EQ(jailed.write(MIB + queue * 2048, filled(2048, queue + 1), queue), virtio::BLK_S_OK);
    EXPECT_EQ(jailed.write(2 * MIB, filled(MIB, 0x51), queue), virtio::BLK_S_OK);
    EXPECT_EQ(jailed.flush(queue), virtio::BLK_S_OK);
  }
  EXPECT_EQ(jailed.differences(sandbox::Stage::RUN), "");
  EXPECT_TRUE(jailed.read(MIB, 2048, 1) == filled(2048, 1));
  EXPECT_TRUE(jailed.read(MIB + 2048, 2048) == filled(2048, 2));
  EXPECT_TRUE(jailed.read(MIB + BLOCK, 256 << 10) == filled(256 << 10, 0x41));
  EXPECT_TRUE(jailed.read(2 * MIB, MIB) == filled(MIB, 0x51));
  EXPECT_EQ(jailed.memoryInUse(), MIB + BLOCK);
  EXPECT_EQ(jailed.discard(2 * MIB, MIB), virtio::BLK_S_OK);
  EXPECT_EQ(jailed.memoryInUse(), BLOCK);
  EXPECT_TRUE(jailed.read(2 * MIB, BLOCK) == filled(BLOCK, 0));
  jailed.end();
  auto after = statOf(folder, name);
  EXPECT_TRUE(folder.load(name) == bytes);
  EXPECT_EQ(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
  EXPECT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

Setting volatileSetting(BlkConfig::Format format) {
  Setting setting;
  setting.format = format;
  setting.volatileBytes = 64 * MIB;
  return setting;
}

TEST(BlkVolatileJailed, ARawDisk) {
  QemuFolder folder;
  folder.store("disk.raw", filled(4 * MIB, 0x41));
  serveVolatile(folder, "disk.raw", volatileSetting(BlkConfig::Format::RAW));
}

TEST(BlkVolatileJailed, AnImage) {
  QemuFolder folder;
  folder.store("base.raw", filled(4 * MIB, 0x41));
  folder.run("qemu-img convert -f raw -O qcow2 base.raw image.qcow2");
  serveVolatile(folder, "image.qcow2", volatileSetting(BlkConfig::Format::QCOW2));
  folder.run("qemu-img convert -c -f raw -O qcow2 base.raw packed.qcow2");
  serveVolatile(folder, "packed.qcow2", volatileSetting(BlkConfig::Format::QCOW2));
}

TEST(BlkVolatileJailed, AnImageWithABackingFile) {
  QemuFolder folder;
  folder.store("base.raw", filled(4 * MIB, 0x41));
  folder.run("qemu-img create -f qcow2 -F raw -b base.raw image.qcow2 6M");
  auto setting = volatileSetting(BlkConfig::Format::QCOW2);
  setting.backing = "base.raw";
  serveVolatile(folder, "image.qcow2", setting);
  EXPECT_TRUE(folder.load("base.raw") == filled(4 * MIB, 0x41));
}

TEST(BlkVolatileJailed, AnImageLargerThanAVolatileDiskCanBeEndsTheStart) {
  QemuFolder folder;
  folder.run("qemu-img create -f qcow2 -o cluster_size=2M image.qcow2 65T");
  Jailed jailed(folder, "image.qcow2", volatileSetting(BlkConfig::Format::QCOW2));
  int status = jailed.device.waitForExit();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
}

TEST(BlkVolatileJailed, AVeryLargeDiskCostsNothing) {
  QemuFolder folder;
  folder.run("qemu-img create -f qcow2 -o cluster_size=2M image.qcow2 1000G");
  Jailed jailed(folder, "image.qcow2", volatileSetting(BlkConfig::Format::QCOW2));
  jailed.attachAndActivate();
  uint64_t end = 1000ull << 30;
  EXPECT_EQ(jailed.write(end - 512, filled(512, 0x61)), virtio::BLK_S_OK);
  EXPECT_TRUE(jailed.read(end - BLOCK, BLOCK - 512) == filled(BLOCK - 512, 0));
  EXPECT_TRUE(jailed.read(end - 512, 512) == filled(512, 0x61));
  EXPECT_EQ(jailed.memoryInUse(), BLOCK);
}

TEST(BlkResizeJailed, ARawDiskGrows) {
  for (int flags : {0, O_DIRECT}) {
    QemuFolder folder;
    folder.store("disk.raw", filled(MIB, 0x41));
    Setting setting;
    setting.flags = flags;
    Jailed jailed(folder, "disk.raw", setting);
    jailed.attachAndActivate();
    EXPECT_EQ(jailed.write(MIB, filled(BLOCK, 1)), virtio::BLK_S_IOERR);
    KJ_SYSCALL(truncate(folder.path("disk.raw").cStr(), 64 * MIB));
    jailed.device.diskSize(64 * MIB);
    ASSERT_EQ(jailed.device.host.configChanges.size(), 1u);
    EXPECT_EQ(jailed.write(63 * MIB, filled(BLOCK, 2), 1), virtio::BLK_S_OK);
    EXPECT_TRUE(jailed.read(63 * MIB, BLOCK) == filled(BLOCK, 2));
    EXPECT_ANY_THROW(jailed.device.diskSize(65 * MIB));
    EXPECT_ANY_THROW(jailed.device.diskSize(MIB));
    EXPECT_EQ(jailed.differences(sandbox::Stage::RUN), "");
    jailed.end();
  }
}

TEST(BlkResizeJailed, AnImageGrowsAndIsSound) {
  QemuFolder folder;
  // Small clusters: a larger disk needs a larger first table, elsewhere in the file.
  folder.run("qemu-img create -f qcow2 -o cluster_size=4k image.qcow2 4M");
  {
    Setting setting;
    setting.format = BlkConfig::Format::QCOW2;
    Jailed jailed(folder, "image.qcow2", setting);
    jailed.attachAndActivate();
    EXPECT_EQ(jailed.write(MIB, filled(MIB, 0x31)), virtio::BLK_S_OK);
    for (uint64_t gigabytes : {1, 20, 200}) {
      uint64_t bytes = gigabytes << 30;
      EXPECT_EQ(jailed.write(bytes - BLOCK, filled(BLOCK, 0x32)), virtio::BLK_S_IOERR);
      jailed.device.diskSize(bytes);
      EXPECT_EQ(jailed.write(bytes - BLOCK, filled(BLOCK, 0x32), 1), virtio::BLK_S_OK);
      EXPECT_TRUE(jailed.read(bytes - 2 * BLOCK, BLOCK) == filled(BLOCK, 0));
    }
    EXPECT_ANY_THROW(jailed.device.diskSize(MIB));
    EXPECT_EQ(jailed.device.host.configChanges.size(), 3u);
    EXPECT_EQ(jailed.flush(), virtio::BLK_S_OK);
    EXPECT_EQ(jailed.differences(sandbox::Stage::RUN), "");
    jailed.end();
  }
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  folder.run("qemu-img info image.qcow2 | grep -q 214748364800");
}

TEST(BlkResizeJailed, ItGrowsAlsoBeforeADriverIsThere) {
  QemuFolder folder;
  folder.run("qemu-img create -f qcow2 image.qcow2 4M");
  Setting setting;
  setting.format = BlkConfig::Format::QCOW2;
  {
    Jailed jailed(folder, "image.qcow2", setting);
    jailed.device.attach();
    jailed.device.diskSize(8 * MIB);
    EXPECT_EQ(jailed.device.host.configChanges.size(), 0u);
    jailed.end();
  }
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  EXPECT_EQ(folder.disk("image.qcow2").size(), 8 * MIB);
}

}  // namespace
}  // namespace troupe::blk
