#pragma once

#include <cstddef>
#include <cstdint>

// What all virtio devices share on the wire (§2, §6), in the spec's order and under its names.
namespace troupe::virtio {

// Device ids, §5.
constexpr uint16_t ID_NETWORK = 1;
constexpr uint16_t ID_BLOCK = 2;
constexpr uint16_t ID_CONSOLE = 3;
constexpr uint16_t ID_ENTROPY = 4;
constexpr uint16_t ID_BALLOON = 5;
constexpr uint16_t ID_SOCKET = 19;

// Feature bits, §6: the ones a device (not its transport) carries.
constexpr uint64_t F_INDIRECT_DESC = 1ull << 28;
constexpr uint64_t F_EVENT_IDX = 1ull << 29;
constexpr uint64_t F_VERSION_1 = 1ull << 32;

constexpr uint32_t MAX_QUEUE_SIZE = 32768;  // §2.7

// Descriptor flags, §2.7.5.
constexpr uint16_t DESC_F_NEXT = 1;
constexpr uint16_t DESC_F_WRITE = 2;
constexpr uint16_t DESC_F_INDIRECT = 4;

struct Descriptor {  // struct virtq_desc, §2.7.5; little-endian
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == 16, "layout fixed by §2.7.5");
static_assert(offsetof(Descriptor, next) == 14, "layout fixed by §2.7.5");

// The available ring, §2.7.6: flags, idx, ring[size], used_event.
constexpr uint16_t AVAIL_F_NO_INTERRUPT = 1;
constexpr size_t AVAIL_FLAGS_OFFSET = 0;
constexpr size_t AVAIL_INDEX_OFFSET = 2;
constexpr size_t AVAIL_RING_OFFSET = 4;
constexpr uint64_t availableRingBytes(uint32_t queueSize) {
  return 6 + 2 * uint64_t(queueSize);
}

// The used ring, §2.7.8: flags, idx, ring[size], avail_event.
constexpr uint16_t USED_F_NO_NOTIFY = 1;
constexpr size_t USED_FLAGS_OFFSET = 0;
constexpr size_t USED_INDEX_OFFSET = 2;
constexpr size_t USED_RING_OFFSET = 4;
constexpr size_t USED_ELEMENT_BYTES = 8;  // le32 id, le32 len
constexpr uint64_t usedRingBytes(uint32_t queueSize) {
  return 6 + 8 * uint64_t(queueSize);
}

constexpr uint64_t descriptorTableBytes(uint32_t queueSize) {
  return 16 * uint64_t(queueSize);
}

// Alignment of the three parts, §2.7.
constexpr uint64_t DESCRIPTOR_TABLE_ALIGNMENT = 16;
constexpr uint64_t AVAILABLE_RING_ALIGNMENT = 2;
constexpr uint64_t USED_RING_ALIGNMENT = 4;

// No chain holds more bytes than this, §2.7.4.
constexpr uint64_t MAX_CHAIN_BYTES = 1ull << 32;

// Whether moving an index from `before` to `now` passed `event`, §2.7.7.2 and §2.7.10
// (vring_need_event). All three are counters modulo 2^16.
constexpr bool passesEvent(uint16_t event, uint16_t before, uint16_t now) {
  return uint16_t(now - event - 1) < uint16_t(now - before);
}

}  // namespace troupe::virtio
