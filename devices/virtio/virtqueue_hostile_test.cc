// Drivers that break the rules. Names carry the ids of the catalogue of hostile guests.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <malloc.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/testing/ring_bench.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::virtio {
namespace {

using testing::Buffer;
using testing::expectBroken;
using testing::FakeDriver;
using testing::FakeRam;
using testing::INDIRECT;
using testing::NEXT;
using testing::readable;
using testing::Ring;
using testing::writable;
using testing::WRITE;

bool isSoundWith(uint32_t size) {
  FakeRam ram;
  RingLayout layout{uint16_t(size), 0, 0x100000, 0x200000};
  GuestMemory memory = ram.memory();
  if (isSound(memory, layout)) {
    Virtqueue queue(memory, layout, {true, true});
    return true;
  }
  EXPECT_ANY_THROW(Virtqueue(memory, layout, RingFeatures{true, true}));
  return false;
}

TEST(VirtqueueHostile, VQ01_QueueSizes) {
  EXPECT_FALSE(isSoundWith(0));
  EXPECT_TRUE(isSoundWith(1));
  EXPECT_TRUE(isSoundWith(2));
  EXPECT_FALSE(isSoundWith(3));
  EXPECT_FALSE(isSoundWith(255));
  EXPECT_TRUE(isSoundWith(1024));
  EXPECT_TRUE(isSoundWith(32768));
  EXPECT_FALSE(isSoundWith(32769));
  EXPECT_FALSE(isSoundWith(65535));
}

TEST(VirtqueueHostile, VQ01_RingsOutsideRamOrMisaligned) {
  FakeRam ram({{0, 0x100000}, {0x200000, 0x100000}});
  GuestMemory memory = ram.memory();
  EXPECT_TRUE(isSound(memory, {256, 0, 0x2000, 0x3000}));
  EXPECT_FALSE(isSound(memory, {256, 8, 0x2000, 0x3000}));
  EXPECT_FALSE(isSound(memory, {256, 0, 0x2001, 0x3000}));
  EXPECT_FALSE(isSound(memory, {256, 0, 0x2000, 0x3002}));
  EXPECT_FALSE(isSound(memory, {256, 0x100000 - 16, 0x2000, 0x3000}));  // into the hole
  EXPECT_FALSE(isSound(memory, {256, 0, 0x1ffff0, 0x3000}));
  EXPECT_FALSE(isSound(memory, {256, 0, 0x2000, 0x300000 - 4}));
  EXPECT_FALSE(isSound(memory, {256, UINT64_MAX - 15, 0x2000, 0x3000}));
  EXPECT_FALSE(isSound(memory, {256, 0, UINT64_MAX - 1, 0x3000}));
  // To the last byte.
  EXPECT_TRUE(isSound(memory, {256, 0x300000 - 4096, 0x2000, 0x3000}));
  EXPECT_FALSE(isSound(memory, {256, 0x300000 - 4080, 0x2000, 0x3000}));
}

TEST(VirtqueueHostile, VQ02_SelfLoop) {
  Ring ring;
  expectBroken(ring, ring.popRaw({{0x20000, 16, NEXT, 0}}));
}

TEST(VirtqueueHostile, VQ02_TwoNodeLoop) {
  Ring ring;
  expectBroken(ring, ring.popRaw({{0x20000, 16, NEXT, 1}, {0x20000, 16, NEXT, 0}}));
}

TEST(VirtqueueHostile, VQ02_LoopOfZeroLengthDescriptors) {
  Ring ring;
  expectBroken(ring, ring.popRaw({{0x20000, 0, NEXT, 1}, {0x20000, 0, NEXT, 0}}));
}

TEST(VirtqueueHostile, VQ02_LoopInsideAnIndirectTable) {
  Ring ring(256);
  expectBroken(ring, ring.popRaw({ring.table({{0x20000, 4, NEXT, 1}, {0x20000, 4, NEXT, 0}})}));
}

// Direct and indirect descriptors together: each part fits, the sum does not.
TEST(VirtqueueHostile, VQ02_ChainLongerThanTheQueue) {
  Ring ring(4);
  Descriptor table = ring.table({{0x20000, 4, NEXT, 1}, {0x20000, 4, NEXT, 2}, {0x20000, 4, 0, 0}});
  expectBroken(ring, ring.popRaw({{0x20000, 4, NEXT, 1}, {0x20000, 4, NEXT, 2}, table}));
}

TEST(VirtqueueHostile, VQ02_ChainAsLongAsTheQueueIsFine) {
  Ring ring(4);
  auto chain = ring.popRaw(
      {{0x20000, 4, NEXT, 1}, {0x20010, 4, NEXT, 2}, {0x20020, 4, NEXT, 3}, {0x20030, 4, 0, 0}});
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).readable().size(), 4);
}

TEST(VirtqueueHostile, VQ02_ZeroLengthDescriptorsLeaveNoPiece) {
  Ring ring;
  auto chain = ring.popRaw({{0, 0, NEXT, 1}, {UINT64_MAX, 0, WRITE, 0}});
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).readableBytes(), 0);
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).writableBytes(), 0);
  ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 0);
  EXPECT_TRUE(ring.queue.publish());
}

TEST(VirtqueueHostile, VQ02_ZeroLengthInTheMiddle) {
  Ring ring;
  auto chain = ring.popRaw({{0x20000, 4, NEXT, 1}, {0x30000, 0, NEXT, 2}, {0x40000, 4, 0, 0}});
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).readableBytes(), 8);
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).readable().size(), 2);
}

TEST(VirtqueueHostile, VQ03_HeadOutsideTheTable) {
  for (uint16_t head : {8, 9, 0x7fff, 0x8000, 0xffff}) {
    Ring ring;
    ring.driver.makeAvailable(head);
    expectBroken(ring, ring.queue.pop());
  }
}

TEST(VirtqueueHostile, VQ03_NextOutsideTheTable) {
  for (uint16_t next : {8, 9, 0x7fff, 0x8000, 0xffff}) {
    Ring ring;
    expectBroken(ring, ring.popRaw({{0x20000, 16, NEXT, next}}));
  }
}

TEST(VirtqueueHostile, VQ03_NextOutsideAnIndirectTable) {
  Ring ring;
  expectBroken(ring, ring.popRaw({ring.table({{0x20000, 16, NEXT, 2}, {0x20000, 16, 0, 0}})}));
}

TEST(VirtqueueHostile, VQ03_ReadableAfterWritable) {
  Ring ring;
  expectBroken(ring, ring.popRaw({{0x20000, 16, NEXT | WRITE, 1}, {0x30000, 16, 0, 0}}));
}

// Only writable where a header should be: the ring takes it, the device finds nothing to read.
TEST(VirtqueueHostile, VQ03_WriteFlagOnTheHeader) {
  Ring ring;
  auto chain = ring.popRaw({{0x20000, 16, NEXT | WRITE, 1}, {0x30000, 1, WRITE, 0}});
  uint64_t header;
  EXPECT_FALSE(KJ_ASSERT_NONNULL(chain).read(header));
}

TEST(VirtqueueHostile, VQ03_SameHeadTwiceInFlight) {
  Ring ring;
  ring.driver.writeDescriptor(0, {0x20000, 16, 0, 0});
  ring.driver.makeAvailable(0);
  ring.driver.makeAvailable(0);
  auto first = ring.queue.pop();
  EXPECT_TRUE(first != nullptr);
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_TRUE(ring.queue.broken());
  // What was taken before may still be answered.
  ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(first)), 0);
  EXPECT_EQ(ring.queue.inFlight(), 0);
}

TEST(VirtqueueHostile, VQ04_AvailableIndexJumps) {
  for (uint16_t index : {9, 100, 0x7fff, 0x8000, 0xffff}) {
    Ring ring;
    ring.driver.writeAvailableIndex(index);
    expectBroken(ring, ring.queue.pop());
  }
}

TEST(VirtqueueHostile, VQ04_AvailableIndexGoesBack) {
  Ring ring;
  for (int i = 0; i < 3; i++)
    ring.driver.add({readable(0x20000, 4)});
  for (int i = 0; i < 3; i++) {
    auto chain = ring.queue.pop();
    ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 0);
  }
  ring.queue.publish();
  ring.driver.writeAvailableIndex(2);
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_TRUE(ring.queue.broken());
}

// Back to before what was taken but not yet returned: the way round to such an index is as long as
// all 2^16, so one kick would serve every slot of the ring thousands of times over.
TEST(VirtqueueHostile, VQ04_AvailableIndexGoesBackWhileDrained) {
  Ring ring;
  for (int i = 0; i < 3; i++)
    ring.driver.add({readable(0x20000, 4)});
  for (int i = 0; i < 3; i++) {
    auto chain = ring.queue.pop();
    ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 0);
  }
  ring.driver.writeAvailableIndex(2);
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_TRUE(ring.queue.broken());
}

// A second thread adds as fast as it can: between two publications there is never more work than
// the ring holds, so one kick's drain ends.
TEST(VirtqueueHostile, VQ04_IndexGrowsWhileDrained) {
  Ring ring(64);
  for (uint16_t i = 0; i < 64; i++) {
    ring.driver.writeDescriptor(i, {0x20000, 4, 0, 0});
    ring.driver.writeAvailable(i, i);
  }
  std::atomic<bool> stop{false};
  std::thread racer([&] {
    uint16_t index = 0;
    while (!stop)
      ring.driver.writeAvailableIndex(++index);
  });
  while (!ring.queue.hasWork())
    std::this_thread::yield();
  int work = 0;
  for (;;) {
    auto chain = ring.queue.pop();
    KJ_IF_MAYBE (taken, chain) {
      ring.queue.push(kj::mv(*taken), 0);
      ++work;
    } else {
      break;
    }
  }
  stop = true;
  racer.join();
  EXPECT_LE(work, 64);
}

TEST(VirtqueueHostile, VQ05_BadBuffers) {
  const uint64_t end = 4 * FakeRam::MIB;
  const std::pair<uint64_t, uint32_t> bad[] = {
      {0, UINT32_MAX},
      {end - 1, UINT32_MAX},
      {UINT64_MAX, 1},
      {UINT64_MAX, 2},
      {UINT64_MAX - 15, 16},
      {UINT64_MAX - 15, 17},
      {end, 1},
      {end - 1, 2},
      {end - 4096, 4097},
      {0xc0000000, 4096},
      {UINT64_MAX - 4095, 8192},
      {1ull << 63, 1},
  };
  for (auto [address, length] : bad) {
    for (uint16_t flags : {uint16_t(0), WRITE}) {
      Ring ring;
      expectBroken(ring, ring.popRaw({{address, length, flags, 0}}));
    }
  }
}

TEST(VirtqueueHostile, VQ05_LastByteOfRam) {
  Ring ring;
  auto chain = ring.popRaw({{4 * FakeRam::MIB - 1, 1, WRITE, 0}});
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).writableBytes(), 1);
}

// The same gigabytes named again and again: 2^32 bytes is the most a chain may hold (§2.7.4).
TEST(VirtqueueHostile, VQ05_SumOfLengths) {
  const uint64_t gib = 1ull << 30;
  FakeRam ram({{0, FakeRam::MIB}, {gib, gib}});
  GuestMemory memory = ram.memory();
  for (bool over : {false, true}) {
    FakeDriver driver(ram, 8);
    Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
    for (uint16_t i = 0; i < 4; i++)
      driver.writeDescriptor(i, {gib, uint32_t(gib), NEXT, uint16_t(i + 1)});
    driver.writeDescriptor(4, {gib, over ? 1u : 0u, 0, 0});
    driver.makeAvailable(0);
    auto chain = queue.pop();
    EXPECT_EQ(chain == nullptr, over);
    EXPECT_EQ(queue.broken(), over);
    KJ_IF_MAYBE (taken, chain) {
      EXPECT_EQ(taken->readableBytes(), 4 * gib);
    }
  }
}

TEST(VirtqueueHostile, VQ06_BufferAcrossRegionsOrIntoTheHole) {
  // The regions lie one behind the other in the file, so a wrong answer would not even crash.
  FakeRam ram({{0, FakeRam::MIB}, {FakeRam::MIB, FakeRam::MIB}, {4 * FakeRam::MIB, FakeRam::MIB}});
  GuestMemory memory = ram.memory();
  for (uint64_t address : {FakeRam::MIB - 8, 2 * FakeRam::MIB - 8, 4 * FakeRam::MIB - 8}) {
    FakeDriver driver(ram, 8);
    Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
    driver.add({writable(address, 16)});
    EXPECT_TRUE(queue.pop() == nullptr);
    EXPECT_TRUE(queue.broken());
  }
}

TEST(VirtqueueHostile, VQ08_IndirectLengths) {
  const uint32_t bad[] = {0, 1, 15, 17, 31, 9 * 16, 0xfffffff0, UINT32_MAX};
  for (uint32_t length : bad) {
    Ring ring;
    expectBroken(ring, ring.popRaw({{0x20000, length, INDIRECT, 0}}));
  }
}

TEST(VirtqueueHostile, VQ08_NestedIndirect) {
  Ring ring;
  Descriptor inner = ring.table({{0x20000, 16, 0, 0}});
  expectBroken(ring, ring.popRaw({ring.table({inner})}));
}

TEST(VirtqueueHostile, VQ08_IndirectWithNext) {
  Ring ring;
  Descriptor table = ring.table({{0x20000, 16, 0, 0}});
  table.flags |= NEXT;
  table.next = 1;
  expectBroken(ring, ring.popRaw({table, {0x20000, 16, 0, 0}}));
}

TEST(VirtqueueHostile, VQ08_IndirectNotNegotiated) {
  Ring ring(8, {false, true});
  expectBroken(ring, ring.popRaw({ring.table({{0x20000, 16, 0, 0}})}));
}

TEST(VirtqueueHostile, VQ08_TableOutsideRam) {
  Ring ring;
  expectBroken(ring, ring.popRaw({{4 * FakeRam::MIB - 16, 32, INDIRECT, 0}}));
}

TEST(VirtqueueHostile, VQ08_TableAcrossRegions) {
  FakeRam ram({{0, FakeRam::MIB}, {FakeRam::MIB, FakeRam::MIB}});
  GuestMemory memory = ram.memory();
  FakeDriver driver(ram, 8);
  Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
  driver.writeDescriptor(0, {FakeRam::MIB - 16, 32, INDIRECT, 0});
  driver.makeAvailable(0);
  EXPECT_TRUE(queue.pop() == nullptr);
  EXPECT_TRUE(queue.broken());
}

// §2.7.5.3.2: the device ignores WRITE there, and takes direct descriptors before the table.
TEST(VirtqueueHostile, VQ08_IndirectAfterDirectWithWriteFlagWorks) {
  Ring ring;
  Descriptor table = ring.table({{0x20000, 16, NEXT, 1}, {0x30000, 32, WRITE, 0}});
  table.flags |= WRITE;
  auto chain = ring.popRaw({{0x10000, 8, NEXT, 1}, table});
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).readableBytes(), 24);
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).writableBytes(), 32);
}

TEST(VirtqueueHostile, VQ08_TableAtAnOddAddress) {
  Ring ring;
  Descriptor entry{0x30000, 12, WRITE, 0};
  memcpy(ring.ram.bytes(0x20003, sizeof(entry)).begin(), &entry, sizeof(entry));
  auto chain = ring.popRaw({{0x20003, sizeof(entry), INDIRECT, 0}});
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).writableBytes(), 12);
}

// A million requests of every good and bad-but-bearable shape: nothing grows.
TEST(VirtqueueHostile, VQ11_MillionRequestsAllocateNothing) {
  Ring ring(64);
  struct mallinfo2 before = mallinfo2();
  for (int i = 0; i < 1000000; i++) {
    ring.driver.writeDescriptor(i % 64, {0x20000, uint32_t(i % 3), uint16_t(i % 2 ? WRITE : 0), 0});
    ring.driver.makeAvailable(i % 64);
    auto chain = ring.queue.pop();
    ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 0);
    ring.queue.publish();
  }
  struct mallinfo2 after = mallinfo2();
  EXPECT_EQ(before.uordblks, after.uordblks);
  EXPECT_EQ(ring.queue.inFlight(), 0);
  EXPECT_FALSE(ring.queue.broken());
}

// The used length may never promise what was not stored, and nothing else is stored.
TEST(VirtqueueHostile, VQ12_OnlyWrittenBytesChange) {
  Ring ring;
  uint16_t head = ring.driver.add({writable(0x20000, 64), writable(0x30000, 64)});
  auto chain = ring.queue.pop();
  kj::byte zeros[70] = {};
  ASSERT_TRUE(KJ_ASSERT_NONNULL(chain).writeBytes(kj::arrayPtr(zeros, 70)));
  ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 70);
  ring.queue.publish();
  auto used = KJ_ASSERT_NONNULL(ring.driver.takeUsed());
  EXPECT_EQ(used.head, head);
  EXPECT_EQ(used.written, 70);
  uint64_t zeroBytes = 0;
  for (kj::byte b : ring.ram.bytes(0x20000, 4 * FakeRam::MIB - 0x20000)) {
    if (b != FakeRam::POISON) ++zeroBytes;
  }
  EXPECT_EQ(zeroBytes, 70);
}

TEST(VirtqueueHostile, VQ12_PromisingMoreThanTheChainHoldsIsRefused) {
  Ring ring;
  ring.driver.add({readable(0x10000, 100), writable(0x20000, 64)});
  auto chain = ring.queue.pop();
  EXPECT_ANY_THROW(ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 65));
}

// Whatever the event words say, requests are served; only interrupts may be too many or too few.
TEST(VirtqueueHostile, VQ13_RandomEventWords) {
  for (bool eventIndex : {false, true}) {
    Ring ring(16, {true, eventIndex});
    std::mt19937 random(1);
    for (int i = 0; i < 200000; i++) {
      ring.driver.writeUsedEvent(random());
      ring.driver.writeAvailableFlags(random());
      ring.driver.add({writable(0x20000, 8)});
      ring.queue.enableNotifications();
      auto chain = ring.queue.pop();
      ring.queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 8);
      ring.queue.publish();
      ring.queue.disableNotifications();
      ASSERT_TRUE(ring.driver.takeUsed() != nullptr);
    }
    EXPECT_FALSE(ring.queue.broken());
  }
}

}  // namespace
}  // namespace troupe::virtio
