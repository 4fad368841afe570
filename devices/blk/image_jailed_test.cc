// qcow2 images in the actor as shipped: the real executable in its real jail, with this test as
// troupe, broker and driver, and qemu-img as judge.
#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstring>
#include <random>
#include <string>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/qcow2/testing/qemu_img.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/virtio/testing/process_bench.h"

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

struct Below {
  const char* name;
  BlkConfig::Format format;
};

// The actor with an image of `folder`, and its backing files.
struct Jailed: testing::BlkDriver {
  Jailed(QemuFolder& folder, kj::StringPtr name, std::initializer_list<Below> below = {},
         bool readOnly = false, int flags = 0)
      : folder(folder),
        readOnly(readOnly),
        fds(handed(name, below, readOnly, flags)),
        device(ram, BLK_PROFILE, "troupe-blk", QUEUES, fds, configure(name, below, readOnly)) {}

  void attachAndActivate() {
    device.attach();
    for (auto& difference : device.attest(sandbox::Stage::READY))
      ADD_FAILURE() << difference.cStr();
    activate();
  }
  void activate() {
    drivers.clear();
    for (int i = 0; i < QUEUES; i++)
      drivers.add(kj::heap<FakeDriver>(ram, 256));
    device.activate(testing::FEATURES | (readOnly ? 0 : virtio::BLK_F_DISCARD),
                    {drivers[0], drivers[1]});
  }
  uint8_t write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes, uint16_t queue = 0) {
    return wait(device, sendWrite(offset / 512, bytes, queue), queue).status;
  }
  uint8_t flush(uint16_t queue = 0) { return wait(device, sendFlush(queue), queue).status; }
  kj::Array<kj::byte> read(uint64_t offset, uint32_t bytes, uint16_t queue = 0) {
    auto sent = sendRead(offset / 512, bytes, queue);
    EXPECT_EQ(wait(device, sent, queue).status, virtio::BLK_S_OK);
    return kj::heapArray<kj::byte>(data(sent, bytes));
  }
  // The broker leaves, as at the end of a VM.
  void end() {
    device.disconnect();
    int status = device.waitForExit();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }

 private:
  QemuFolder& folder;
  const bool readOnly;
  kj::Vector<kj::AutoCloseFd> files;
  capnp::MallocMessageBuilder message;
  kj::Array<HandedFd> fds;

  kj::Array<HandedFd> handed(kj::StringPtr name, std::initializer_list<Below> below, bool readOnly,
                             int flags) {
    kj::Vector<HandedFd> all;
    auto add = [&](kj::StringPtr as, uint index, kj::StringPtr file, int mode) {
      int fd;
      KJ_SYSCALL(fd = open(folder.path(file).cStr(), mode | O_CLOEXEC), file);
      files.add(kj::AutoCloseFd(fd));
      all.add(HandedFd{as, index, fd});
    };
    add("disk", 0, name, (readOnly ? O_RDONLY : O_RDWR) | flags);
    uint index = 0;
    for (auto& file : below)
      add("backing", index++, file.name, O_RDONLY);
    return all.releaseAsArray();
  }

  kj::Maybe<capnp::AnyPointer::Reader> configure(kj::StringPtr name,
                                                 std::initializer_list<Below> below,
                                                 bool readOnly) {
    auto config = message.initRoot<BlkConfig>();
    config.setId("image");
    config.setQueues(QUEUES);
    config.setReadOnly(readOnly);
    config.setFormat(BlkConfig::Format::QCOW2);
    config.setPath(name);
    auto backing = config.initBacking(below.size());
    uint index = 0;
    for (auto& file : below) {
      backing[index].setPath(file.name);
      backing[index++].setFormat(file.format);
    }
    return message.getRoot<capnp::AnyPointer>().asReader();
  }

 public:
  ProcessBench device;
};

TEST(BlkImageJailed, ServesAndLeavesASoundImage) {
  QemuFolder folder;
  folder.run("qemu-img create -f qcow2 image.qcow2 64M");
  {
    Jailed jailed(folder, "image.qcow2");
    jailed.attachAndActivate();
    for (int round = 0; round < 3; round++) {
      for (uint16_t queue = 0; queue < QUEUES; queue++) {
        uint64_t offset = (round * QUEUES + queue) * 5 * MIB;
        auto ones = filled(256 << 10, 0x11 + round);
        EXPECT_EQ(jailed.write(offset + BLOCK, ones, queue), virtio::BLK_S_OK);
        EXPECT_EQ(jailed.write(offset + 2 * BLOCK, filled(BLOCK, 0x77), queue), virtio::BLK_S_OK);
        EXPECT_TRUE(jailed.read(offset, BLOCK, queue) == filled(BLOCK, 0));
        EXPECT_TRUE(jailed.read(offset + BLOCK, BLOCK, queue) == filled(BLOCK, 0x11 + round));
        EXPECT_TRUE(jailed.read(offset + 2 * BLOCK, BLOCK, queue) == filled(BLOCK, 0x77));
        EXPECT_EQ(jailed.flush(queue), virtio::BLK_S_OK);
      }
      for (auto& difference : jailed.device.attest(sandbox::Stage::RUN))
        ADD_FAILURE() << difference.cStr();
      jailed.device.reset();
      jailed.activate();
    }
    jailed.end();
  }
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  auto disk = folder.disk("image.qcow2");
  EXPECT_EQ(disk[BLOCK], 0x11);
  EXPECT_EQ(disk[25 * MIB + BLOCK], 0x13);
  EXPECT_EQ(disk[25 * MIB + 2 * BLOCK], 0x77);
}

TEST(BlkImageJailed, WhatIsNotFlushedIsThereAfterAnOrderlyEnd) {
  QemuFolder folder;
  folder.run("qemu-img create -f qcow2 -o lazy_refcounts=on image.qcow2 4M");
  Jailed jailed(folder, "image.qcow2");
  jailed.attachAndActivate();
  EXPECT_EQ(jailed.write(MIB, filled(BLOCK, 0x31)), virtio::BLK_S_OK);
  jailed.end();
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  EXPECT_EQ(folder.disk("image.qcow2")[MIB], 0x31);
}

TEST(BlkImageJailed, WhatIsDiscardedLeavesTheFile) {
  QemuFolder folder;
  folder.run("qemu-img create -f qcow2 image.qcow2 16M");
  {
    Jailed jailed(folder, "image.qcow2");
    jailed.attachAndActivate();
    for (uint64_t offset = 0; offset < 16 * MIB; offset += MIB)
      EXPECT_EQ(jailed.write(offset, filled(MIB, 0x51)), virtio::BLK_S_OK);
    EXPECT_EQ(jailed.flush(), virtio::BLK_S_OK);
    virtio::BlkRange range{2 * MIB / 512, 12 * MIB / 512, 0};
    auto buffer = jailed.driver().readableBuffer(kj::arrayPtr(&range, 1).asBytes());
    auto sent = jailed.send(virtio::BLK_T_DISCARD, 0, kj::arrayPtr(&buffer, 1));
    EXPECT_EQ(jailed.wait(jailed.device, sent).status, virtio::BLK_S_OK);
    EXPECT_EQ(jailed.flush(), virtio::BLK_S_OK);
    EXPECT_TRUE(jailed.read(3 * MIB, BLOCK) == filled(BLOCK, 0));
    jailed.end();
  }
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  struct stat info;
  KJ_SYSCALL(stat(folder.path("image.qcow2").cStr(), &info));
  EXPECT_LT(info.st_blocks * 512, 6 * MIB);
}

TEST(BlkImageJailed, BackingFilesAndCompressedClusters) {
  QemuFolder folder;
  folder.store("base.raw", filled(4 * MIB, 0x41));
  folder.run("qemu-img convert -c -f raw -O qcow2 base.raw middle.qcow2");
  folder.run("qemu-img create -f qcow2 -F qcow2 -b middle.qcow2 image.qcow2 6M");
  {
    Jailed jailed(folder, "image.qcow2", {{"middle.qcow2", BlkConfig::Format::QCOW2}});
    jailed.attachAndActivate();
    EXPECT_TRUE(jailed.read(MIB, 256 << 10) == filled(256 << 10, 0x41));
    EXPECT_TRUE(jailed.read(5 * MIB, BLOCK) == filled(BLOCK, 0));
    EXPECT_EQ(jailed.write(MIB + BLOCK, filled(BLOCK, 0x42)), virtio::BLK_S_OK);
    EXPECT_TRUE(jailed.read(MIB, BLOCK, 1) == filled(BLOCK, 0x41));
    EXPECT_TRUE(jailed.read(MIB + BLOCK, BLOCK, 1) == filled(BLOCK, 0x42));
    jailed.end();
  }
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  folder.run("qemu-img create -f qcow2 -F raw -b base.raw raw.qcow2 4M");
  Jailed jailed(folder, "raw.qcow2", {{"base.raw", BlkConfig::Format::RAW}});
  jailed.attachAndActivate();
  EXPECT_TRUE(jailed.read(MIB, 256 << 10) == filled(256 << 10, 0x41));
}

TEST(BlkImageJailed, BLK06_ABackingFileThatIsNotTheOneNamedEndsTheStart) {
  QemuFolder folder;
  folder.store("base.raw", filled(MIB, 0x41));
  folder.store("other.raw", filled(MIB, 0x42));
  folder.run("qemu-img create -f qcow2 -F raw -b base.raw image.qcow2");
  auto status = [&](std::initializer_list<Below> below) {
    Jailed jailed(folder, "image.qcow2", below);
    int status = jailed.device.waitForExit();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  EXPECT_EQ(status({}), 1);
  EXPECT_EQ(status({{"other.raw", BlkConfig::Format::RAW}}), 1);
  EXPECT_EQ(status({{"base.raw", BlkConfig::Format::QCOW2}}), 1);
}

TEST(BlkImageJailed, AReadOnlyImageIsServedAndStaysAsItIs) {
  QemuFolder folder;
  folder.store("base.raw", filled(MIB, 0x41));
  folder.run("qemu-img convert -f raw -O qcow2 base.raw image.qcow2");
  auto before = folder.load("image.qcow2");
  {
    Jailed jailed(folder, "image.qcow2", {}, true);
    jailed.attachAndActivate();
    EXPECT_TRUE(jailed.read(0, MIB / 2) == filled(MIB / 2, 0x41));
    EXPECT_EQ(jailed.write(0, filled(BLOCK, 1)), virtio::BLK_S_IOERR);
    EXPECT_EQ(jailed.flush(), virtio::BLK_S_OK);
    jailed.end();
  }
  EXPECT_TRUE(folder.load("image.qcow2") == before);
}

// Killed at random points: what was flushed is there, and the image has leaks at most.
TEST(BlkImageJailed, KilledWhileItWrites) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 50; round++) {
    QemuFolder folder;
    folder.run("qemu-img create -f qcow2 -o cluster_size=4k image.qcow2 8M");
    uint64_t flushed = 0;
    {
      Jailed jailed(folder, "image.qcow2");
      jailed.attachAndActivate();
      uint64_t writes = random() % 24;
      for (uint64_t i = 0; i < writes; i++) {
        EXPECT_EQ(jailed.write(i * 3 * BLOCK * 5, filled(3 * BLOCK, i + 1)), virtio::BLK_S_OK);
        if (i % 4 == 3) {
          EXPECT_EQ(jailed.flush(), virtio::BLK_S_OK);
          flushed = i + 1;
        }
      }
      // In the midst of more of them.
      for (uint64_t i = 0; i < 32; i++)
        jailed.sendWrite((4 * MIB + i * 4 * BLOCK) / 512, filled(2 * BLOCK, 0xaa), i % QUEUES);
      jailed.sendFlush(0);
      jailed.device.kick(0);
      jailed.device.kick(1);
      for (volatile uint64_t spin = random() % 2000000; spin > 0; spin = spin - 1) {
      }
      KJ_SYSCALL(kill(jailed.device.child().pid(), SIGKILL));
      jailed.device.waitForExit();
    }
    auto said = folder.check("image.qcow2");
    ASSERT_TRUE(said == "" || said == "leaks") << said.cStr();
    auto disk = folder.disk("image.qcow2");
    for (uint64_t i = 0; i < flushed; i++) {
      auto there = disk.slice(i * 15 * BLOCK, (i * 15 + 3) * BLOCK);
      ASSERT_TRUE(there == filled(3 * BLOCK, i + 1)) << "write " << i << " of round " << round;
    }
  }
}

}  // namespace
}  // namespace troupe::blk
