#include "devices/virtio/virtqueue.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"

namespace troupe::virtio {
namespace {

using testing::Buffer;
using testing::FakeDriver;
using testing::FakeRam;
using testing::readable;
using testing::writable;

struct Ring {
  explicit Ring(uint16_t size = 8, RingFeatures features = {true, true})
      : driver(ram, size, features),
        memory(ram.memory()),
        queue(memory, driver.layout(), features) {}
  FakeRam ram;
  FakeDriver driver;
  GuestMemory memory;
  Virtqueue queue;
};

Chain popped(Virtqueue& queue) {
  auto chain = queue.pop();
  return kj::mv(KJ_REQUIRE_NONNULL(chain));
}

kj::ArrayPtr<const kj::byte> bytesOf(const char* text) {
  return kj::StringPtr(text).asBytes();
}

TEST(Virtqueue, EmptyRingHasNoWork) {
  Ring ring;
  EXPECT_FALSE(ring.queue.hasWork());
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_FALSE(ring.queue.broken());
}

TEST(Virtqueue, EachChainTakenOrReturnedIsAStepOfItsThread) {
  Ring ring;
  uint64_t word = 0;
  Pulse pulse;
  pulse.showIn(word);
  ring.queue.beatIn(pulse);
  uint64_t last = word;
  for (int i = 0; i < 3; i++) {
    ring.driver.add({readable(0x20000, 16)});
    Chain chain = popped(ring.queue);
    EXPECT_NE(word, last);
    last = word;
    ring.queue.push(kj::mv(chain), 0);
    EXPECT_NE(word, last);
    last = word;
  }
  // To look into an empty ring is none.
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_EQ(word, last);
}

TEST(Virtqueue, ChainShowsReadableThenWritableBuffers) {
  Ring ring;
  uint16_t head = ring.driver.add({readable(0x20000, 16), readable(0x30000, 512),
                                   writable(0x40000, 4096), writable(0x50000, 1)});
  EXPECT_TRUE(ring.queue.hasWork());
  Chain chain = popped(ring.queue);
  EXPECT_EQ(chain.head(), head);
  EXPECT_EQ(chain.readableBytes(), 528);
  EXPECT_EQ(chain.writableBytes(), 4097);
  ASSERT_EQ(chain.readable().size(), 2);
  ASSERT_EQ(chain.writable().size(), 2);
  EXPECT_EQ(chain.readable()[1].iov_base, ring.ram.bytes(0x30000, 512).begin());
  EXPECT_EQ(chain.writable()[0].iov_len, 4096);
  EXPECT_FALSE(ring.queue.hasWork());
  EXPECT_EQ(ring.queue.inFlight(), 1);
}

TEST(Virtqueue, ReadGathersAStructSplitPerByte) {
  Ring ring(32);
  auto text = bytesOf("0123456789abcdef");
  kj::Vector<Buffer> buffers;
  for (size_t i = 0; i < text.size(); i++) {
    buffers.add(ring.driver.readableBuffer(text.slice(i, i + 1)));
  }
  ring.driver.add(buffers);
  Chain chain = popped(ring.queue);
  kj::byte copy[16];
  EXPECT_TRUE(chain.read(copy));
  EXPECT_EQ(memcmp(copy, text.begin(), 16), 0);
  EXPECT_EQ(chain.readableBytes(), 0);
  EXPECT_EQ(chain.readable().size(), 0);
}

TEST(Virtqueue, ShortReadTakesNothing) {
  Ring ring;
  ring.driver.add({readable(0x20000, 15)});
  Chain chain = popped(ring.queue);
  kj::byte copy[16];
  EXPECT_FALSE(chain.read(copy));
  EXPECT_EQ(chain.readableBytes(), 15);
}

TEST(Virtqueue, WriteBytesScattersAndRefusesTooMuch) {
  Ring ring;
  ring.driver.add({writable(0x20000, 2), writable(0x30000, 4)});
  Chain chain = popped(ring.queue);
  EXPECT_FALSE(chain.writeBytes(bytesOf("1234567")));
  EXPECT_TRUE(chain.writeBytes(bytesOf("123")));
  EXPECT_TRUE(chain.writeBytes(bytesOf("456")));
  EXPECT_EQ(memcmp(ring.ram.bytes(0x20000, 2).begin(), "12", 2), 0);
  EXPECT_EQ(memcmp(ring.ram.bytes(0x30000, 4).begin(), "3456", 4), 0);
  EXPECT_EQ(ring.ram.bytes(0x30004, 1)[0], FakeRam::POISON);
}

TEST(Virtqueue, TailIsTakenFromTheLastPieceEvenWhenSplit) {
  Ring ring;
  ring.driver.add({writable(0x20000, 8), writable(0x30000, 3)});
  Chain chain = popped(ring.queue);
  ASSERT_TRUE(chain.reserveTail(5));  // two bytes of the first piece, three of the second
  EXPECT_EQ(chain.writableBytes(), 6);
  ASSERT_EQ(chain.writable().size(), 1);
  EXPECT_EQ(chain.writable()[0].iov_len, 6);
  chain.advanceWritable(6);
  chain.writeTail(bytesOf("tail!"));
  EXPECT_EQ(memcmp(ring.ram.bytes(0x20006, 2).begin(), "ta", 2), 0);
  EXPECT_EQ(memcmp(ring.ram.bytes(0x30000, 3).begin(), "il!", 3), 0);
  EXPECT_EQ(ring.ram.bytes(0x20005, 1)[0], FakeRam::POISON);
}

TEST(Virtqueue, TailOfAWholePieceLeavesTheOthers) {
  Ring ring;
  ring.driver.add({readable(0x10000, 4), writable(0x20000, 8), writable(0x30000, 1)});
  Chain chain = popped(ring.queue);
  ASSERT_TRUE(chain.reserveTail(1));
  ASSERT_EQ(chain.writable().size(), 1);
  EXPECT_EQ(chain.writable()[0].iov_len, 8);
  chain.writeTail(bytesOf("s"));
  EXPECT_EQ(ring.ram.bytes(0x30000, 1)[0], 's');
}

TEST(Virtqueue, TailLongerThanTheChainIsRefused) {
  Ring ring;
  ring.driver.add({readable(0x10000, 64)});
  Chain chain = popped(ring.queue);
  EXPECT_FALSE(chain.reserveTail(1));
}

// A longest chain in its big storage: the spare piece is the one behind it.
TEST(Virtqueue, TailSplitsThePieceOfALongestChain) {
  Ring ring(64);
  kj::Vector<Buffer> buffers;
  for (int i = 0; i < 64; i++)
    buffers.add(writable(0x20000 + i * 0x100, 4));
  ring.driver.addIndirect(buffers);
  Chain chain = popped(ring.queue);
  ASSERT_EQ(chain.writable().size(), 64);
  ASSERT_TRUE(chain.reserveTail(6));
  EXPECT_EQ(chain.writable().size(), 63);
  EXPECT_EQ(chain.writable()[62].iov_len, 2);
  chain.writeTail(bytesOf("abcdef"));
  EXPECT_EQ(memcmp(ring.ram.bytes(0x20000 + 62 * 0x100 + 2, 2).begin(), "ab", 2), 0);
  EXPECT_EQ(memcmp(ring.ram.bytes(0x20000 + 63 * 0x100, 4).begin(), "cdef", 4), 0);
}

TEST(Virtqueue, AdvanceMovesAcrossPieces) {
  Ring ring;
  ring.driver.add({readable(0x10000, 8), readable(0x20000, 8), writable(0x30000, 8)});
  Chain chain = popped(ring.queue);
  chain.advanceReadable(10);
  ASSERT_EQ(chain.readable().size(), 1);
  EXPECT_EQ(chain.readable()[0].iov_len, 6);
  EXPECT_EQ(chain.readableBytes(), 6);
  EXPECT_ANY_THROW(chain.advanceReadable(7));
}

TEST(Virtqueue, UsedElementsAppearWithOnePublish) {
  Ring ring;
  uint16_t first = ring.driver.add({writable(0x20000, 8)});
  uint16_t second = ring.driver.add({writable(0x30000, 8)});
  Chain one = popped(ring.queue);
  Chain two = popped(ring.queue);
  ring.queue.push(kj::mv(two), 8);  // any order
  ring.queue.push(kj::mv(one), 3);
  EXPECT_EQ(ring.driver.usedIndex(), 0);
  EXPECT_TRUE(ring.queue.publish());
  EXPECT_EQ(ring.driver.usedIndex(), 2);
  auto used = KJ_ASSERT_NONNULL(ring.driver.takeUsed());
  EXPECT_EQ(used.head, second);
  EXPECT_EQ(used.written, 8);
  used = KJ_ASSERT_NONNULL(ring.driver.takeUsed());
  EXPECT_EQ(used.head, first);
  EXPECT_EQ(used.written, 3);
  EXPECT_EQ(ring.queue.inFlight(), 0);
}

TEST(Virtqueue, TheDriverIsAskedLaterAboutWhatItWasShown) {
  for (bool eventIndex : {true, false}) {
    Ring ring(8, {true, eventIndex});
    ring.driver.wantInterrupts(true);
    EXPECT_FALSE(ring.queue.isAwaited());
    for (int i = 0; i < 3; i++)
      ring.driver.add({writable(0x20000, 64)});
    for (uint16_t i = 1; i <= 2; i++) {
      ring.queue.push(popped(ring.queue), 0);
      ring.queue.show();
      EXPECT_EQ(ring.driver.usedIndex(), i);
      EXPECT_TRUE(ring.queue.isAwaited());
    }
    EXPECT_TRUE(ring.queue.publish());
    EXPECT_FALSE(ring.queue.publish());
    EXPECT_FALSE(ring.queue.isAwaited());
    ring.driver.wantInterrupts(false);
    ring.queue.push(popped(ring.queue), 0);
    ring.queue.show();
    EXPECT_FALSE(ring.queue.isAwaited());
    EXPECT_FALSE(ring.queue.publish());
    EXPECT_EQ(ring.driver.usedIndex(), 3);
  }
}

TEST(Virtqueue, NothingPushedIsNoInterrupt) {
  Ring ring;
  EXPECT_FALSE(ring.queue.publish());
}

TEST(Virtqueue, PushingWhatWasNotTakenIsOurFault) {
  Ring ring;
  ring.driver.add({writable(0x20000, 8)});
  Chain chain = popped(ring.queue);
  ring.queue.push(kj::mv(chain), 0);
  EXPECT_ANY_THROW(ring.queue.push(kj::mv(chain), 0));
}

// §2.7.7.2 without VIRTIO_F_EVENT_IDX: the flag decides.
TEST(Virtqueue, FlagSuppressesInterruptsWithoutEventIndex) {
  Ring ring(8, {true, false});
  ring.driver.wantInterrupts(false);
  ring.driver.add({writable(0x20000, 8)});
  ring.queue.push(popped(ring.queue), 0);
  EXPECT_FALSE(ring.queue.publish());
  ring.driver.wantInterrupts(true);
  ring.driver.add({writable(0x20000, 8)});
  ring.queue.push(popped(ring.queue), 0);
  EXPECT_TRUE(ring.queue.publish());
}

// §2.7.10 without VIRTIO_F_EVENT_IDX.
TEST(Virtqueue, FlagSuppressesNotificationsWithoutEventIndex) {
  Ring ring(8, {true, false});
  ring.queue.disableNotifications();
  ring.driver.add({writable(0x20000, 8)});
  EXPECT_FALSE(ring.driver.shouldKick());
  ring.queue.enableNotifications();
  ring.driver.add({writable(0x20000, 8)});
  EXPECT_TRUE(ring.driver.shouldKick());
}

// §2.7.7.2 with it: an interrupt when the index passes used_event, once per batch.
TEST(Virtqueue, InterruptComesWhenTheBatchPassesUsedEvent) {
  Ring ring;
  ring.driver.writeUsedEvent(2);  // after the third element
  for (int i = 0; i < 2; i++) {
    ring.driver.add({writable(0x20000, 8)});
    ring.queue.push(popped(ring.queue), 0);
    EXPECT_FALSE(ring.queue.publish());
  }
  for (int i = 0; i < 2; i++) {
    ring.driver.add({writable(0x20000, 8)});
    ring.queue.push(popped(ring.queue), 0);
  }
  EXPECT_TRUE(ring.queue.publish());
  ring.driver.add({writable(0x20000, 8)});
  ring.queue.push(popped(ring.queue), 0);
  EXPECT_FALSE(ring.queue.publish());
}

// §2.7.10 with it: the driver notifies once, then not again until asked.
TEST(Virtqueue, NotificationIsAskedForByAvailEvent) {
  Ring ring;
  ring.queue.enableNotifications();
  ring.driver.add({writable(0x20000, 8)});
  EXPECT_TRUE(ring.driver.shouldKick());
  ring.queue.disableNotifications();
  ring.driver.add({writable(0x20000, 8)});
  EXPECT_FALSE(ring.driver.shouldKick());
  while (ring.queue.pop() != nullptr) {
  }
  ring.queue.enableNotifications();
  EXPECT_EQ(ring.driver.availableEvent(), 2);
  ring.driver.add({writable(0x20000, 8)});
  EXPECT_TRUE(ring.driver.shouldKick());
}

// Every counter passes 65535 → 0 twice; interrupts and notifications stay exact.
TEST(Virtqueue, VQ01_IndicesWrapWithEventIndex) {
  Ring ring(4);
  for (int i = 0; i < 140000; i++) {
    ring.queue.enableNotifications();
    ring.driver.wantInterrupts(true);
    ring.driver.add({writable(0x20000, 8)});
    ASSERT_TRUE(ring.driver.shouldKick()) << i;
    ring.queue.push(popped(ring.queue), 8);
    ASSERT_TRUE(ring.queue.publish()) << i;
    ASSERT_TRUE(ring.driver.takeUsed() != nullptr) << i;
  }
  EXPECT_FALSE(ring.queue.broken());
}

TEST(Virtqueue, VQ01_IndicesWrapWithBatchesAndSuppression) {
  Ring ring(8);
  ring.driver.wantInterrupts(false);
  int interrupts = 0;
  for (int i = 0; i < 20000; i++) {
    for (int k = 0; k < 7; k++)
      ring.driver.add({writable(0x20000, 8)});
    for (int k = 0; k < 7; k++)
      ring.queue.push(popped(ring.queue), 8);
    interrupts += ring.queue.publish();
    for (int k = 0; k < 7; k++)
      ASSERT_TRUE(ring.driver.takeUsed() != nullptr);
  }
  // used_event stands still: one interrupt each time the index goes all the way round, no more.
  EXPECT_LE(interrupts, 20000 * 7 / 65536 + 1);
  EXPECT_FALSE(ring.queue.broken());
}

}  // namespace
}  // namespace troupe::virtio
