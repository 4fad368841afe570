#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::virtio::testing {

constexpr uint16_t NEXT = DESC_F_NEXT;
constexpr uint16_t WRITE = DESC_F_WRITE;
constexpr uint16_t INDIRECT = DESC_F_INDIRECT;

// Both sides of one ring in RAM of its own.
struct Ring {
  explicit Ring(uint16_t size = 8, RingFeatures features = {true, true})
      : driver(ram, size, features),
        memory(ram.memory()),
        queue(memory, driver.layout(), features) {}

  // What pop() makes of one chain written by hand, its head in descriptor 0.
  kj::Maybe<Chain> popRaw(std::initializer_list<Descriptor> descriptors) {
    uint16_t i = 0;
    for (const Descriptor& descriptor : descriptors)
      driver.writeDescriptor(i++, descriptor);
    driver.makeAvailable(0);
    return queue.pop();
  }

  // An indirect table with these entries, and the descriptor for it.
  Descriptor table(std::initializer_list<Descriptor> descriptors) {
    uint64_t address = ram.allocate(descriptors.size() * sizeof(Descriptor));
    memcpy(ram.bytes(address, descriptors.size() * sizeof(Descriptor)).begin(), descriptors.begin(),
           descriptors.size() * sizeof(Descriptor));
    return Descriptor{address, uint32_t(descriptors.size() * sizeof(Descriptor)), INDIRECT, 0};
  }

  FakeRam ram;
  FakeDriver driver;
  GuestMemory memory;
  Virtqueue queue;
};

// The ring refuses the chain, stays broken, and no bit of guest memory but the ring was touched.
inline void expectBroken(Ring& ring, kj::Maybe<Chain> result) {
  EXPECT_TRUE(result == nullptr);
  EXPECT_TRUE(ring.queue.broken());
  EXPECT_FALSE(ring.queue.hasWork());
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_EQ(ring.driver.usedIndex(), 0);
}

}  // namespace troupe::virtio::testing
