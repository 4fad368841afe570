#pragma once

#include <cstdint>

#include "devices/net/net_wire.h"
#include "devices/virtio/guest_word.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/virtqueue.h"
#include "devices/virtio/wire.h"

namespace troupe::net::testing {

// One queue of a driver that costs next to nothing: slot i of its ring always holds chain i, one
// buffer for header and frame, and it only moves indices. It takes no interrupts.
class LeanQueue {
 public:
  static constexpr uint16_t RING = 256;

  LeanQueue(virtio::testing::FakeRam& ram, uint32_t bufferBytes, bool writable);

  virtio::RingLayout where() const { return layout; }

  // How many buffers the device has.
  uint16_t outside() const { return nextAvailable - nextUsed; }
  void give(uint16_t count) { nextAvailable += count; }
  // True when the device wants to be notified.
  bool publish() {
    uint16_t before = published;
    if (before == nextAvailable) return false;
    published = nextAvailable;
    virtio::storeIndex(available + virtio::AVAIL_INDEX_OFFSET, nextAvailable);
    uint16_t event = virtio::loadIndex(used + virtio::USED_RING_OFFSET + RING * 8);
    return virtio::passesEvent(event, before, nextAvailable);
  }
  // How many buffers came back. They come back in order.
  uint16_t takeUsed() {
    uint16_t now = virtio::loadIndex(used + virtio::USED_INDEX_OFFSET);
    uint16_t count = now - nextUsed;
    nextUsed = now;
    virtio::storeWord<uint16_t>(available + virtio::AVAIL_RING_OFFSET + RING * 2, nextUsed - 1);
    return count;
  }

 private:
  const virtio::RingLayout layout;
  kj::byte* const available;
  kj::byte* const used;
  uint16_t nextAvailable = 0;
  uint16_t published = 0;
  uint16_t nextUsed = 0;
};

}  // namespace troupe::net::testing
