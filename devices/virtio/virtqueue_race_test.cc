// A ring that changes while it is read. Names carry the ids of the catalogue of hostile guests.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <atomic>
#include <random>
#include <thread>

#include "devices/virtio/testing/ring_bench.h"

namespace troupe::virtio {
namespace {

using testing::expectBroken;
using testing::FakeDriver;
using testing::FakeRam;
using testing::NEXT;
using testing::Ring;
using testing::writable;
using testing::WRITE;

// A thread flips header and descriptors for ever; each pop sees one consistent, checked state.
TEST(VirtqueueRace, TOC02_RacingWriterNeverGetsPastTheChecks) {
  Ring ring;
  std::atomic<bool> stop{false};
  std::thread racer([&] {
    // Lengths good and bad, addresses in RAM and not, flags with and without NEXT.
    uint64_t n = 0;
    while (!stop) {
      ++n;
      ring.driver.writeDescriptor(
          0, {n & 1 ? 0x20000 : UINT64_MAX, n & 2 ? 16 : UINT32_MAX, uint16_t(n & 4 ? NEXT : WRITE),
              uint16_t(n & 8 ? 0xffff : 1)});
    }
  });
  ring.driver.writeDescriptor(1, {0x30000, 16, WRITE, 0});
  kj::ArrayPtr<kj::byte> ram = ring.ram.bytes(0, 4 * FakeRam::MIB);
  // Only a reset heals a broken ring, so each round has a ring of its own over the same memory.
  for (int i = 0; i < 20000; i++) {
    ring.driver.writeAvailableIndex(0);
    ring.driver.makeAvailable(0);
    Virtqueue queue(ring.memory, ring.driver.layout(), {true, true});
    auto chain = queue.pop();
    KJ_IF_MAYBE (taken, chain) {
      uint64_t bytes = 0;
      for (auto pieces : {taken->readable(), taken->writable()}) {
        for (const iovec& piece : pieces) {
          auto begin = static_cast<kj::byte*>(piece.iov_base);
          ASSERT_GE(begin, ram.begin());
          ASSERT_LE(piece.iov_len, size_t(ram.end() - begin));
          bytes += piece.iov_len;
        }
      }
      ASSERT_EQ(bytes, taken->readableBytes() + taken->writableBytes());
    } else {
      ASSERT_TRUE(queue.broken());
    }
  }
  stop = true;
  racer.join();
}

// The length in the descriptor grows after the chain was taken: the chain keeps what was checked.
TEST(VirtqueueRace, TOC03_LengthChangedAfterPop) {
  Ring ring;
  uint16_t head = ring.driver.add({writable(0x20000, 16)});
  auto chain = ring.queue.pop();
  ring.driver.writeDescriptor(head, {0x20000, UINT32_MAX, WRITE, 0});
  kj::byte bytes[17] = {};
  EXPECT_FALSE(KJ_ASSERT_NONNULL(chain).writeBytes(kj::arrayPtr(bytes, 17)));
  EXPECT_EQ(KJ_ASSERT_NONNULL(chain).writable()[0].iov_len, 16);
}

// A refused chain leaves no trace in the queue's own state.
TEST(VirtqueueRace, TOC04_RefusedChainIsNotInFlight) {
  Ring ring;
  expectBroken(ring, ring.popRaw({{0x20000, 16, NEXT, 1}, {UINT64_MAX, 16, 0, 0}}));
  EXPECT_EQ(ring.queue.inFlight(), 0);
}

// Random rings, random descriptors: no crash, no hang, nothing outside RAM (the address sanitizer
// and the mapping's end watch), every chain within its bounds.
TEST(VirtqueueRace, RandomRings) {
  FakeRam ram(FakeRam::MIB);
  GuestMemory memory = ram.memory();
  std::mt19937_64 random(7);
  const uint64_t addresses[] = {0, 0x1000, 0x20000, FakeRam::MIB - 1, FakeRam::MIB, UINT64_MAX};
  const uint32_t lengths[] = {0, 1, 15, 16, 32, 128, 4096, UINT32_MAX};
  FakeDriver driver(ram, 16);
  for (int round = 0; round < 20000; round++) {
    driver.writeAvailableIndex(0);
    Virtqueue queue(memory, driver.layout(), {true, (round & 1) != 0});
    for (uint16_t i = 0; i < 16; i++) {
      driver.writeDescriptor(
          i, {addresses[random() % 6] & ~(random() % 2 ? 0ull : 15ull), lengths[random() % 8],
              uint16_t(random() % 8), uint16_t(random() % 18)});
      driver.writeAvailable(i, random() % 17);
    }
    driver.writeAvailableIndex(random() % 18);
    for (int steps = 0;; steps++) {
      ASSERT_LE(steps, 16);
      auto chain = queue.pop();
      KJ_IF_MAYBE (taken, chain) {
        ASSERT_LE(taken->readable().size() + taken->writable().size(), 16);
        queue.push(kj::mv(*taken), 0);
      } else {
        break;
      }
    }
    queue.publish();
  }
}

}  // namespace
}  // namespace troupe::virtio
