#include "devices/blk/blk_engine.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/thread.h>
#include <kj/vector.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "devices/blk/testing/any_medium.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/virtio/spin.h"
#include "devices/virtio/wire.h"

namespace troupe::blk {
namespace {

using testing::BlkBench;
using testing::filled;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectorByte;
using testing::sectors;
using virtio::testing::Buffer;
using virtio::testing::FakeRam;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;  // in units that every medium takes
constexpr uint64_t SECTORS_PER_BLOCK = BLOCK / 512;

bool isAll(kj::ArrayPtr<const kj::byte> bytes, kj::byte value) {
  return std::all_of(bytes.begin(), bytes.end(), [&](kj::byte byte) { return byte == value; });
}

class BlkOnAnyMedium: public testing::OnAnyMedium {};
INSTANTIATE_ON_ANY_MEDIUM(BlkOnAnyMedium);

TEST_P(BlkOnAnyMedium, ReadGivesWhatTheFileHolds) {
  ScratchDisk file(GetParam(), MIB);
  file.dropCache();
  BlkBench bench(file.fd());
  auto sent = bench.sendRead(16, 2 * BLOCK);
  auto reply = bench.wait(sent);
  EXPECT_EQ(reply.status, virtio::BLK_S_OK);
  EXPECT_EQ(reply.written, 2 * BLOCK + 1);
  EXPECT_TRUE(bench.data(sent, 2 * BLOCK) == sectors(16, 2 * SECTORS_PER_BLOCK));
}

TEST_P(BlkOnAnyMedium, WriteIsInTheFileAfterAFlush) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench bench(file.fd());
  auto ones = filled(2 * BLOCK, 0x11);
  auto write = bench.wait(bench.sendWrite(8, ones));
  EXPECT_EQ(write.status, virtio::BLK_S_OK);
  EXPECT_EQ(write.written, 1);
  EXPECT_EQ(bench.wait(bench.sendFlush()).status, virtio::BLK_S_OK);
  EXPECT_TRUE(file.contents(8 * 512, ones.size()) == ones);
  EXPECT_TRUE(file.contents(0, 8 * 512) == sectors(0, 8));
  EXPECT_TRUE(file.contents(24 * 512, 512) == sectors(24, 1));
}

TEST_P(BlkOnAnyMedium, DriverWithoutFlushGetsDurableWrites) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench::Options options;
  options.features = testing::FEATURES & ~virtio::BLK_F_FLUSH;
  BlkBench bench(file.fd(), options);
  auto ones = filled(BLOCK, 0x11);
  EXPECT_EQ(bench.wait(bench.sendWrite(8, ones)).status, virtio::BLK_S_OK);
  EXPECT_TRUE(file.contents(8 * 512, BLOCK) == ones);
}

TEST_P(BlkOnAnyMedium, DataMayBeScatteredOverManyBuffers) {
  ScratchDisk file(GetParam(), MIB);
  file.dropCache();
  BlkBench bench(file.fd());
  kj::Vector<Buffer> buffers;
  for (int i = 0; i < 100; i++)
    buffers.add(writable(bench.allocate(BLOCK), BLOCK));
  auto reply = bench.wait(bench.send(virtio::BLK_T_IN, 0, buffers));
  EXPECT_EQ(reply.status, virtio::BLK_S_OK);
  EXPECT_EQ(reply.written, 100 * BLOCK + 1);
  for (int i = 0; i < 100; i++) {
    EXPECT_TRUE(bench.ram.bytes(buffers[i].address, BLOCK) ==
                sectors(i * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK));
  }
}

// A guest may put data anywhere, split anyhow; O_DIRECT takes neither.
TEST_P(BlkOnAnyMedium, DataMayLieAtAnyAddress) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench bench(file.fd());
  uint64_t address = bench.allocate(128 << 10) + 3;
  uint32_t size = 96 << 10;
  Buffer read[] = {writable(address, 1001), writable(address + 1001, size - 1001)};
  EXPECT_EQ(bench.wait(bench.send(virtio::BLK_T_IN, 8, read)).written, size + 1);
  EXPECT_TRUE(bench.ram.bytes(address, size) == sectors(8, size / 512));
  EXPECT_EQ(bench.ram.bytes(address - 1, 1)[0], FakeRam::POISON);
  EXPECT_EQ(bench.ram.bytes(address + size, 1)[0], FakeRam::POISON);

  Buffer write[] = {readable(address, 77), readable(address + 77, size - 77)};
  EXPECT_EQ(bench.wait(bench.send(virtio::BLK_T_OUT, 0, write)).status, virtio::BLK_S_OK);
  EXPECT_TRUE(file.contents(0, size) == sectors(8, size / 512));
}

TEST_P(BlkOnAnyMedium, ThirtyTwoAtOnceAreEachAnsweredWithTheirOwn) {
  ScratchDisk file(GetParam(), 4 * MIB);
  file.dropCache();
  BlkBench bench(file.fd());
  constexpr int DEPTH = 32;
  kj::Vector<BlkBench::Sent> sent;
  kj::Vector<uint64_t> places;
  for (int i = 0; i < DEPTH; i++) {
    places.add(uint64_t(i * 37 % 128) * 8 * SECTORS_PER_BLOCK);
    sent.add(bench.sendRead(places[i], BLOCK));
  }
  bench.device.kick(0);
  bench.device.waitUntil([&] { return bench.driver().usedIndex() == DEPTH; });
  for (int i = 0; i < DEPTH; i++) {
    EXPECT_EQ(bench.status(sent[i]), virtio::BLK_S_OK);
    EXPECT_TRUE(bench.data(sent[i], BLOCK) == sectors(places[i], SECTORS_PER_BLOCK)) << i;
  }
}

TEST_P(BlkOnAnyMedium, ReadsAndWritesAndFlushesMixed) {
  ScratchDisk file(GetParam(), 4 * MIB);
  BlkBench bench(file.fd());
  for (int round = 1; round <= 20; round++) {
    for (int i = 0; i < 16; i++)
      bench.sendWrite(i * SECTORS_PER_BLOCK, filled(BLOCK, round + i));
    bench.sendFlush();
    bench.device.kick(0);
    bench.device.waitUntil([&] { return bench.driver().usedIndex() == uint16_t(round * 17); });
    while (bench.driver().takeUsed() != nullptr) {
    }
    for (int i = 0; i < 16; i++) {
      ASSERT_TRUE(isAll(file.contents(i * BLOCK, BLOCK), round + i)) << round << " " << i;
    }
  }
}

TEST_P(BlkOnAnyMedium, BLK07_FileCutBehindOurBack) {
  ScratchDisk file(GetParam(), MIB);
  BlkBench bench(file.fd());
  file.truncate(2 * BLOCK);
  auto sent = bench.sendRead(SECTORS_PER_BLOCK, 4 * BLOCK);
  auto reply = bench.wait(sent);
  EXPECT_EQ(reply.status, virtio::BLK_S_IOERR);
  EXPECT_EQ(reply.written, BLOCK);  // what was there
  EXPECT_TRUE(bench.data(sent, BLOCK) == sectors(SECTORS_PER_BLOCK, SECTORS_PER_BLOCK));

  sent = bench.sendRead(64, BLOCK);
  reply = bench.wait(sent);
  EXPECT_EQ(reply.status, virtio::BLK_S_IOERR);
  EXPECT_EQ(reply.written, 0);
  EXPECT_TRUE(isAll(bench.data(sent, BLOCK), FakeRam::POISON));
  EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
}

TEST_P(BlkOnAnyMedium, RST01_ResetWith256RequestsInFlight) {
  ScratchDisk file(GetParam(), 8 * MIB);
  file.dropCache();
  BlkBench bench(file.fd());
  for (int round = 0; round < 3; round++) {
    uint64_t data = bench.allocate(85 * BLOCK);
    for (int i = 0; i < 85; i++) {  // with three descriptors each, the ring is full
      Buffer buffer = writable(data + i * BLOCK, BLOCK);
      bench.send(virtio::BLK_T_IN, i * 16 * SECTORS_PER_BLOCK, kj::arrayPtr(&buffer, 1));
    }
    bench.device.kick(0);
    bench.device.reset();
    // From here on the memory is the driver's: nothing may come in late.
    memset(bench.ram.bytes(data, 85 * BLOCK).begin(), 0x77, 85 * BLOCK);
    bench.activateAgain();
    EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
    EXPECT_TRUE(isAll(bench.ram.bytes(data, 85 * BLOCK), 0x77));
    bench.device.reset();
    bench.activateAgain();
  }
}

TEST_P(BlkOnAnyMedium, RST01_ResetWith256IndirectRequestsInFlight) {
  ScratchDisk file(GetParam(), 8 * MIB);
  file.dropCache();
  BlkBench bench(file.fd());
  uint64_t data = bench.allocate(256 * BLOCK);
  for (int i = 0; i < 256; i++) {
    virtio::BlkRequestHeader header{virtio::BLK_T_IN, 0, i * SECTORS_PER_BLOCK};
    bench.driver().addIndirect({bench.driver().readableBuffer(kj::arrayPtr(&header, 1).asBytes()),
                                writable(data + i * BLOCK, BLOCK),
                                writable(bench.ram.allocate(1), 1)});
  }
  bench.device.kick(0);
  bench.device.reset();
  memset(bench.ram.bytes(data, 256 * BLOCK).begin(), 0x77, 256 * BLOCK);
  bench.activateAgain();
  EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
  EXPECT_TRUE(isAll(bench.ram.bytes(data, 256 * BLOCK), 0x77));
}

// The rest does not depend on where the disk lies.

TEST(Blk, ConfigurationSpaceDescribesTheDisk) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.queues = 2;
  BlkBench bench(file.fd(), options);
  auto response = bench.device.describe();
  auto info = response.getInfo();
  EXPECT_EQ(info.getDeviceType(), virtio::ID_BLOCK);
  EXPECT_EQ(info.getQueueSizes().size(), 2);
  virtio::BlkConfigSpace config;
  ASSERT_EQ(info.getConfig().size(), sizeof(config));
  memcpy(&config, info.getConfig().begin(), sizeof(config));
  EXPECT_EQ(config.capacity, MIB / 512);
  EXPECT_EQ(config.blockSize, 512);
  EXPECT_EQ(config.segMax, 254);
  EXPECT_EQ(config.queueCount, 2);
  EXPECT_EQ(info.getFeatures() & virtio::BLK_F_RO, 0);
  EXPECT_EQ(info.getResetDeadlineMs(), 5000);
}

TEST(Blk, ReadOnlyDiskSaysSo) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.access = Disk::Access::READ_ONLY;
  BlkBench bench(file.fd(), options);
  EXPECT_NE(bench.device.describe().getInfo().getFeatures() & virtio::BLK_F_RO, 0);
}

TEST(Blk, BLK03_WriteToAReadOnlyDiskFailsAndLeavesItUnchanged) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.access = Disk::Access::READ_ONLY;  // FEATURES do not acknowledge RO
  BlkBench bench(file.fd(), options);
  EXPECT_EQ(bench.wait(bench.sendWrite(0, filled(BLOCK, 1))).status, virtio::BLK_S_IOERR);
  EXPECT_TRUE(file.contents(0, BLOCK) == sectors(0, SECTORS_PER_BLOCK));
}

TEST(Blk, BLK03_UnknownTypeIsUnsupportedAndTouchesNothing) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  Buffer data = writable(bench.allocate(BLOCK), BLOCK);
  auto reply = bench.wait(bench.send(0x1234, 0, kj::arrayPtr(&data, 1)));
  EXPECT_EQ(reply.status, virtio::BLK_S_UNSUPP);
  EXPECT_EQ(reply.written, 0);
  EXPECT_TRUE(isAll(bench.ram.bytes(data.address, BLOCK), FakeRam::POISON));
}

TEST(Blk, BLK02_RequestBehindTheEndTouchesNothing) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  auto sent = bench.sendRead(~0ull, BLOCK);
  EXPECT_EQ(bench.wait(sent).status, virtio::BLK_S_IOERR);
  EXPECT_TRUE(isAll(bench.data(sent, BLOCK), FakeRam::POISON));
  EXPECT_EQ(bench.wait(bench.sendWrite(MIB / 512, filled(BLOCK, 1))).status, virtio::BLK_S_IOERR);
  EXPECT_EQ(bench.wait(bench.sendRead(MIB / 512 - 8, BLOCK)).status, virtio::BLK_S_OK);
}

TEST(Blk, VQ03_ChainWithoutRoomForAStatusIsReturnedEmpty) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  virtio::BlkRequestHeader header{virtio::BLK_T_OUT, 0, 0};
  bench.driver().add({bench.driver().readableBuffer(kj::arrayPtr(&header, 1).asBytes()),
                      readable(bench.allocate(512), 512)});
  EXPECT_EQ(bench.device.waitForUsed(0, bench.driver()).written, 0);
  EXPECT_TRUE(file.contents(0, 512) == sectors(0, 1));
  EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
}

TEST(Blk, GetIdAnswersTwentyBytes) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  Buffer data = writable(bench.allocate(20), 20);
  auto reply = bench.wait(bench.send(virtio::BLK_T_GET_ID, 0, kj::arrayPtr(&data, 1)));
  EXPECT_EQ(reply.status, virtio::BLK_S_OK);
  EXPECT_EQ(reply.written, 21);
  EXPECT_EQ(memcmp(bench.ram.bytes(data.address, 20).begin(), "disk-of-a-test\0\0\0\0\0\0", 20), 0);
}

TEST(Blk, BLK05_GetIdIntoOneByte) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  Buffer data = writable(bench.allocate(2), 1);
  auto reply = bench.wait(bench.send(virtio::BLK_T_GET_ID, 0, kj::arrayPtr(&data, 1)));
  EXPECT_EQ(reply.status, virtio::BLK_S_OK);
  EXPECT_EQ(reply.written, 2);
  EXPECT_EQ(bench.ram.bytes(data.address, 1)[0], 'd');
  EXPECT_EQ(bench.ram.bytes(data.address + 1, 1)[0], FakeRam::POISON);
}

// The status lies behind bytes that were not stored, so the used length cannot count it.
TEST(Blk, BLK05_GetIdIntoMoreThanItFills) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  Buffer data = writable(bench.allocate(64), 64);
  auto reply = bench.wait(bench.send(virtio::BLK_T_GET_ID, 0, kj::arrayPtr(&data, 1)));
  EXPECT_EQ(reply.status, virtio::BLK_S_OK);
  EXPECT_EQ(reply.written, 20);
  EXPECT_TRUE(isAll(bench.ram.bytes(data.address + 20, 44), FakeRam::POISON));
}

TEST(Blk, TwoQueuesServeAtTheSameTime) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.queues = 2;
  BlkBench bench(file.fd(), options);
  for (int i = 0; i < 50; i++) {
    auto first = bench.sendWrite(i, sectors(i + 100, 1), 0);
    auto second = bench.sendRead(i + 200, 512, 1);
    EXPECT_EQ(bench.wait(second, 1).status, virtio::BLK_S_OK);
    EXPECT_EQ(bench.wait(first, 0).status, virtio::BLK_S_OK);
    EXPECT_TRUE(bench.data(second, 512) == sectors(i + 200, 1));
  }
  EXPECT_TRUE(file.contents(0, 50 * 512) == sectors(100, 50));
}

TEST(Blk, ABatchMakesOneInterrupt) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.activated = false;
  BlkBench bench(file.fd(), options);
  bench.driver().wantInterrupts(true);
  for (int i = 0; i < 64; i++)
    bench.sendRead(0, 512);
  bench.device.activate(testing::FEATURES, {&bench.driver()});
  bench.device.waitUntil([&] { return bench.driver().usedIndex() == 64; });
  bench.device.waitForInterrupt(0);
  bench.device.settle();
  EXPECT_FALSE(bench.device.interrupted(0));
}

TEST(Blk, BrokenRingAsksForAResetOnceAndWorksAfterIt) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  bench.driver().makeAvailable(0xffff);
  bench.device.kick(0);
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
  bench.device.kick(0);
  bench.device.settle();
  EXPECT_EQ(bench.device.host.resetsAsked, 1);
  bench.device.reset();
  bench.activateAgain();
  EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
}

TEST(Blk, RST04_KicksWhileInactiveTouchNothing) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  bench.device.reset();
  auto sent = bench.sendRead(0, BLOCK);
  bench.device.kick(0);
  bench.device.settle();
  EXPECT_EQ(bench.driver().usedIndex(), 0);
  EXPECT_TRUE(isAll(bench.data(sent, BLOCK), FakeRam::POISON));
}

TEST(Blk, DriverMayEnableNoQueueOrOnlyTheSecond) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.queues = 2;
  options.activated = false;
  BlkBench bench(file.fd(), options);
  bench.device.activate(testing::FEATURES, {});
  bench.device.reset();
  bench.device.activate(testing::FEATURES, {nullptr, &bench.driver(1)});
  EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK, 1), 1).status, virtio::BLK_S_OK);
}

TEST(Blk, WorksWithoutSpinning) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.spinMicros = 0;
  BlkBench bench(file.fd(), options);
  for (int i = 0; i < 1000; i++)
    ASSERT_EQ(bench.wait(bench.sendRead(i, 512)).status, virtio::BLK_S_OK);
}

// A second CPU of the guest rewrites the header while it is parsed: each request is served as one
// of the two it could be, whole.
TEST(Blk, TOC02_HeaderChangedWhileInUse) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  auto sent = bench.sendRead(0, 512);
  auto header = bench.ram.bytes(bench.driver().readDescriptor(sent.head).address, 16);
  uint64_t* sector = reinterpret_cast<uint64_t*>(header.begin() + 8);
  std::atomic<bool> over{false};
  kj::Thread flipping([&] {
    while (!over)
      __atomic_store_n(sector, __atomic_load_n(sector, __ATOMIC_RELAXED) ^ (1ull << 55),
                       __ATOMIC_RELAXED);
  });
  KJ_DEFER(over = true);
  for (uint16_t done = 1; done <= 500; done++) {
    bench.device.kick(0);
    bench.device.waitUntil([&] { return bench.driver().usedIndex() == done; });
    auto used = bench.driver().usedElement((done - 1) % 256);
    if (bench.status(sent) == virtio::BLK_S_OK) {
      ASSERT_EQ(used.written, 513);
    } else {
      ASSERT_EQ(bench.status(sent), virtio::BLK_S_IOERR);
      ASSERT_EQ(used.written, 0);
    }
    bench.driver().makeAvailable(sent.head);
  }
}

TEST(Blk, VQ11_FailingRequestsLeaveNothingBehind) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench bench(file.fd());
  kj::Vector<uint16_t> heads;
  for (int i = 0; i < 64; i++)
    heads.add(bench.sendRead(~0ull, 512).head);
  bench.device.kick(0);
  uint16_t done = 64;
  for (int round = 0; round < 2000; round++) {
    bench.device.waitUntil([&] { return bench.driver().usedIndex() == done; });
    for (uint16_t head : heads)
      bench.driver().makeAvailable(head);  // the descriptors are still as they were
    bench.device.kick(0);
    done += heads.size();
  }
  bench.device.waitUntil([&] { return bench.driver().usedIndex() == done; });
  bench.device.reset();
  bench.activateAgain();
  EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
  EXPECT_EQ(bench.device.host.resetsAsked, 0);
}

// Nothing comes too early; how much later it comes is the machine's business.
TEST(Blk, ALimitHoldsAllQueuesBack) {
  for (bool ofBytes : {false, true}) {
    ScratchDisk file(Medium::MEMORY, MIB);
    BlkBench::Options options;
    options.queues = 2;
    (ofBytes ? options.limits.bytesPerSecond : options.limits.requestsPerSecond) =
        ofBytes ? 200 * BLOCK : 200;
    (ofBytes ? options.limits.burstBytes : options.limits.burstRequests) = ofBytes ? BLOCK : 1;
    BlkBench bench(file.fd(), options);
    uint64_t begin = virtio::monotonicNs();
    for (uint16_t i = 0; i < 20; i++)
      bench.sendRead(0, BLOCK, i % 2);
    bench.device.kick(0);
    bench.device.kick(1);
    bench.device.waitUntil(
        [&] { return bench.driver(0).usedIndex() == 10 && bench.driver(1).usedIndex() == 10; });
    // Twenty at 5 ms each, but the first is the burst, and each queue may go into debt once.
    EXPECT_GE(virtio::monotonicNs() - begin, 17 * 5000000ull);
  }
}

TEST(Blk, AResetDoesNotWaitForTheLimit) {
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.limits.bytesPerSecond = 1;
  options.limits.burstBytes = 1;
  BlkBench bench(file.fd(), options);
  EXPECT_EQ(bench.wait(bench.sendRead(0, BLOCK)).status, virtio::BLK_S_OK);
  auto held = bench.sendRead(0, BLOCK);  // for more than an hour
  bench.device.kick(0);
  bench.device.settle();
  EXPECT_EQ(bench.status(held), BlkBench::NO_STATUS);
  bench.device.reset();
}

TEST(Blk, IdLongerThanTwentyBytesIsRefused) {
  ScratchDisk file(Medium::MEMORY, MIB);
  Disk disk(file.fd(), Disk::Access::READ_WRITE);
  auto io = kj::setupAsyncIo();
  testing::OpenProcess process;
  EXPECT_ANY_THROW(BlkEngine(io.unixEventPort, disk, BlkOptions{"123456789012345678901"}, process));
  EXPECT_ANY_THROW(BlkEngine(io.unixEventPort, disk, BlkOptions{"", 0}, process));
  EXPECT_ANY_THROW(BlkEngine(io.unixEventPort, disk, BlkOptions{"", 17}, process));
}

TEST(Blk, WhoTakesOverWaitsUntilTheOneBeforeAndItsRingsHaveLetGo) {
  ScratchDisk file(Medium::MEMORY, MIB);
  Disk disk(file.fd(), Disk::Access::READ_WRITE);
  auto io = kj::setupAsyncIo();
  testing::OpenProcess process;
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  kj::AutoCloseFd before(ends[0]), witness(ends[1]), ofARing(dup(witness));
  BlkOptions options;
  options.before = before;
  BlkEngine engine(io.unixEventPort, disk, options, process);
  auto over = engine.takeOver().eagerlyEvaluate(nullptr);
  EXPECT_FALSE(over.poll(io.waitScope));
  ASSERT_EQ(write(witness, "x", 1), 1);  // a word is no end
  witness = nullptr;
  EXPECT_FALSE(over.poll(io.waitScope));
  ofARing = nullptr;
  over.wait(io.waitScope);
}

TEST(Blk, AFilterThatCannotBeTakenEndsTheStart) {
  class Refusing final: public BlkProcess {
   public:
    kj::AutoCloseFd keep(kj::StringPtr, uint32_t, kj::AutoCloseFd fd) override {
      return kj::mv(fd);
    }
    void confineThread() override { KJ_FAIL_REQUIRE("no filter"); }
  };
  ScratchDisk file(Medium::MEMORY, MIB);
  Disk disk(file.fd(), Disk::Access::READ_WRITE);
  auto io = kj::setupAsyncIo();
  Refusing process;
  EXPECT_ANY_THROW(BlkEngine(io.unixEventPort, disk, BlkOptions(), process));
}

}  // namespace
}  // namespace troupe::blk
