// Requests that no sound driver makes, against the actor as shipped, in its jail.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>

#include "devices/blk/blk_wire.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/jailed_blk.h"
#include "devices/blk/testing/scratch_disk.h"
#include "tests/fuzz/process_usage.h"

namespace troupe::blk {
namespace {

using testing::filled;
using testing::JailedBlk;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectors;
using virtio::testing::Buffer;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;
constexpr uint64_t SECTORS = MIB / 512;

class BlkHostileJailed: public ::testing::TestWithParam<Medium> {
 public:
  ~BlkHostileJailed() noexcept override {}

 protected:
  void SetUp() override {
    if (!testing::isAvailable(GetParam())) GTEST_SKIP() << "/var/tmp is in memory";
    file = kj::heap<ScratchDisk>(GetParam(), MIB);
    jailed = kj::heap<JailedBlk>(file->fd());
    jailed->attachAndActivate();
    usage = fuzz::usageOf(jailed->device.child().pid());
  }
  void TearDown() override {
    if (jailed.get() == nullptr) return;
    // The disk is as well as before, and its process holds no more than before.
    auto sent = jailed->sendRead(0, BLOCK);
    EXPECT_EQ(jailed->wait(jailed->device, sent).status, virtio::BLK_S_OK);
    auto now = fuzz::usageOf(jailed->device.child().pid());
    EXPECT_LE(now.fds, usage.fds);
    // The kernel may have made workers for its rings.
    EXPECT_LE(now.threads, usage.threads + 2 * testing::JAILED_QUEUES);
    EXPECT_EQ(jailed->device.host.resetsAsked, 0u);
  }

  // A chain as it is given, and a status byte behind it. The status; 0xff where none was stored.
  uint8_t ask(kj::ArrayPtr<const Buffer> buffers, bool hasStatus = true) {
    kj::Vector<Buffer> all;
    all.addAll(buffers);
    uint64_t status = jailed->ram.allocate(1);
    jailed->ram.bytes(status, 1)[0] = 0xff;
    if (hasStatus) all.add(writable(status, 1));
    jailed->driver().add(all);
    used = jailed->device.waitForUsed(0, jailed->driver()).written;
    return jailed->ram.bytes(status, 1)[0];
  }
  uint8_t ask(uint32_t type, uint64_t sector, kj::ArrayPtr<const Buffer> data) {
    return jailed->wait(jailed->device, jailed->send(type, sector, data)).status;
  }
  Buffer header(uint32_t type, uint64_t sector, uint32_t bytes = sizeof(virtio::BlkRequestHeader)) {
    kj::byte room[64] = {};
    virtio::BlkRequestHeader what{type, 0, sector};
    memcpy(room, &what, sizeof(what));
    return jailed->driver().readableBuffer(kj::arrayPtr(room, bytes));
  }
  Buffer room(uint32_t bytes) { return writable(jailed->allocate(bytes), bytes); }
  uint8_t change(uint32_t type, virtio::BlkRange range, uint32_t bytes = sizeof(range)) {
    kj::byte copy[64] = {};
    memcpy(copy, &range, sizeof(range));
    Buffer data = jailed->driver().readableBuffer(kj::arrayPtr(copy, bytes));
    return ask(type, 0, kj::arrayPtr(&data, 1));
  }
  void expectUnchanged() { EXPECT_TRUE(file->contents(0, MIB) == sectors(0, SECTORS)); }

  kj::Own<ScratchDisk> file;
  kj::Own<JailedBlk> jailed;
  fuzz::Usage usage{};
  uint32_t used = 0;
};

INSTANTIATE_TEST_SUITE_P(Media, BlkHostileJailed,
                         ::testing::Values(Medium::MEMORY, Medium::CACHED, Medium::DIRECT));

TEST_P(BlkHostileJailed, BLK01_HeadersOfAnyLengthAndInPieces) {
  for (uint32_t bytes : {1u, 15u, 17u, 32u}) {
    Buffer buffers[] = {header(virtio::BLK_T_IN, 0, bytes), room(512)};
    EXPECT_EQ(ask(buffers), virtio::BLK_S_IOERR) << bytes;
    Buffer alone[] = {header(virtio::BLK_T_FLUSH, 0, bytes)};
    EXPECT_EQ(ask(alone), virtio::BLK_S_IOERR) << bytes;
  }
  EXPECT_EQ(ask(kj::ArrayPtr<const Buffer>()), virtio::BLK_S_IOERR) << "no header";
  Buffer whole = header(virtio::BLK_T_IN, 3);
  kj::Vector<Buffer> bytewise;
  for (uint32_t i = 0; i < whole.length; i++)
    bytewise.add(readable(whole.address + i, 1));
  Buffer data = room(512);
  for (uint32_t i = 0; i < 512; i += 64)
    bytewise.add(writable(data.address + i, 64));
  EXPECT_EQ(ask(bytewise), virtio::BLK_S_OK);
  EXPECT_EQ(used, 513u);
  EXPECT_TRUE(jailed->ram.bytes(data.address, 512) == sectors(3, 1));
  Buffer noStatus[] = {header(virtio::BLK_T_FLUSH, 0)};
  EXPECT_EQ(ask(noStatus, false), 0xff);
  EXPECT_EQ(used, 0u);
  expectUnchanged();
}

TEST_P(BlkHostileJailed, BLK02_RequestsPastTheEnd) {
  for (uint64_t sector : {SECTORS - 7, SECTORS, SECTORS + 1, uint64_t(1) << 55,
                          (uint64_t(1) << 55) - 8, UINT64_MAX - 7, UINT64_MAX}) {
    Buffer in = room(BLOCK);
    EXPECT_EQ(ask(virtio::BLK_T_IN, sector, kj::arrayPtr(&in, 1)), virtio::BLK_S_IOERR) << sector;
    auto out = jailed->sendWrite(sector, filled(BLOCK, 0x11));
    EXPECT_EQ(jailed->wait(jailed->device, out).status, virtio::BLK_S_IOERR) << sector;
    virtio::BlkRange range{sector, 8, 0};
    EXPECT_EQ(change(virtio::BLK_T_DISCARD, range), virtio::BLK_S_IOERR) << sector;
    EXPECT_EQ(change(virtio::BLK_T_WRITE_ZEROES, range), virtio::BLK_S_IOERR) << sector;
  }
  expectUnchanged();
}

TEST_P(BlkHostileJailed, BLK03_TypesThatAreNone) {
  for (uint32_t type : {2u, 3u, 5u, 7u, 9u, 10u, 12u, 14u, 0x80000000u, UINT32_MAX}) {
    Buffer in = room(512);
    EXPECT_EQ(ask(type, 0, kj::arrayPtr(&in, 1)), virtio::BLK_S_UNSUPP) << type;
  }
  expectUnchanged();
}

TEST_P(BlkHostileJailed, BLK03_AReadOnlyDiskIsNotWrittenWhateverWasNegotiated) {
  jailed = nullptr;  // one at a time
  auto reading = file->openReadOnly();
  JailedBlk fixed(reading, /*readOnly=*/true);
  fixed.attachAndActivate();  // without RO among the features
  auto write = fixed.sendWrite(0, filled(BLOCK, 0x11));
  EXPECT_EQ(fixed.wait(fixed.device, write).status, virtio::BLK_S_IOERR);
  for (uint32_t type : {virtio::BLK_T_DISCARD, virtio::BLK_T_WRITE_ZEROES}) {
    virtio::BlkRange range{0, 8, 0};
    Buffer data = fixed.driver().readableBuffer(kj::arrayPtr(&range, 1).asBytes());
    auto sent = fixed.send(type, 0, kj::arrayPtr(&data, 1));
    EXPECT_EQ(fixed.wait(fixed.device, sent).status, virtio::BLK_S_IOERR);
  }
  expectUnchanged();
}

TEST_P(BlkHostileJailed, BLK04_RangesThatAreNone) {
  for (uint32_t type : {virtio::BLK_T_DISCARD, virtio::BLK_T_WRITE_ZEROES}) {
    for (uint32_t bytes : {0u, 1u, 15u, 17u, 32u}) {
      EXPECT_EQ(change(type, {0, 8, 0}, bytes), virtio::BLK_S_IOERR) << bytes << " bytes of range";
    }
    EXPECT_EQ(change(type, {0, UINT32_MAX, 0}), virtio::BLK_S_IOERR);
    EXPECT_EQ(change(type, {8, uint32_t(SECTORS), 0}), virtio::BLK_S_IOERR);
    EXPECT_EQ(change(type, {0, 8, 2}), virtio::BLK_S_UNSUPP);
    EXPECT_EQ(change(type, {0, 8, UINT32_MAX}), virtio::BLK_S_UNSUPP);
    EXPECT_EQ(change(type, {5, 0, 0}), virtio::BLK_S_OK) << "no sectors are no harm";
  }
  EXPECT_EQ(change(virtio::BLK_T_DISCARD, {0, 8, virtio::BLK_RANGE_UNMAP}), virtio::BLK_S_UNSUPP);
  expectUnchanged();
}

TEST_P(BlkHostileJailed, BLK05_AnIdIntoAnyRoom) {
  for (uint32_t bytes : {1u, 19u, 20u, 21u, 4096u}) {
    Buffer in = room(bytes);
    memset(jailed->ram.bytes(in.address, bytes).begin(), 0x77, bytes);
    EXPECT_EQ(ask(virtio::BLK_T_GET_ID, 0, kj::arrayPtr(&in, 1)), virtio::BLK_S_OK) << bytes;
    EXPECT_EQ(jailed->ram.bytes(in.address, 1)[0], 'j');
    for (uint32_t i = 20; i < bytes; i++)
      ASSERT_EQ(jailed->ram.bytes(in.address + i, 1)[0], 0x77) << "not the device's to write";
  }
  EXPECT_EQ(ask(virtio::BLK_T_GET_ID, 0, kj::ArrayPtr<const Buffer>()), virtio::BLK_S_OK);
}

TEST_P(BlkHostileJailed, BLK07_TheFileIsCutWhileItIsServed) {
  file->truncate(MIB / 2);
  file->dropCache();
  Buffer in = room(BLOCK);
  EXPECT_EQ(ask(virtio::BLK_T_IN, SECTORS - 8, kj::arrayPtr(&in, 1)), virtio::BLK_S_IOERR);
  Buffer across = room(2 * BLOCK);
  EXPECT_EQ(ask(virtio::BLK_T_IN, SECTORS / 2 - 8, kj::arrayPtr(&across, 1)), virtio::BLK_S_IOERR);
  Buffer before = room(BLOCK);
  EXPECT_EQ(ask(virtio::BLK_T_IN, SECTORS / 2 - 8, kj::arrayPtr(&before, 1)), virtio::BLK_S_OK);
  // A write makes the file as long again as it has to be.
  auto out = jailed->sendWrite(SECTORS - 8, filled(BLOCK, 0x11));
  EXPECT_EQ(jailed->wait(jailed->device, out).status, virtio::BLK_S_OK);
  EXPECT_EQ(jailed->wait(jailed->device, jailed->sendFlush()).status, virtio::BLK_S_OK);
}

}  // namespace
}  // namespace troupe::blk
