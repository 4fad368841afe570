#include "devices/net/testing/lean_net_driver.h"

#include <cstring>

namespace troupe::net::testing {

constexpr uint64_t PAGE = 4096;

LeanQueue::LeanQueue(virtio::testing::FakeRam& ram, uint32_t bufferBytes, bool writable)
    : layout{RING, ram.allocate(virtio::descriptorTableBytes(RING), PAGE),
             ram.allocate(virtio::availableRingBytes(RING), PAGE),
             ram.allocate(virtio::usedRingBytes(RING), PAGE)},
      available(ram.bytes(layout.availableRing, virtio::availableRingBytes(RING)).begin()),
      used(ram.bytes(layout.usedRing, virtio::usedRingBytes(RING)).begin()) {
  memset(available, 0, virtio::availableRingBytes(RING));
  memset(used, 0, virtio::usedRingBytes(RING));
  uint64_t buffers = ram.allocate(uint64_t(RING) * bufferBytes, PAGE);
  memset(ram.bytes(buffers, uint64_t(RING) * bufferBytes).begin(), 0, uint64_t(RING) * bufferBytes);
  auto table = reinterpret_cast<virtio::Descriptor*>(
      ram.bytes(layout.descriptorTable, virtio::descriptorTableBytes(RING)).begin());
  for (uint16_t i = 0; i < RING; i++) {
    table[i] = {buffers + uint64_t(i) * bufferBytes, bufferBytes,
                uint16_t(writable ? virtio::DESC_F_WRITE : 0), 0};
    virtio::storeWord<uint16_t>(available + virtio::AVAIL_RING_OFFSET + i * 2, i);
  }
}

}  // namespace troupe::net::testing
