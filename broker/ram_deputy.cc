#include "broker/ram_deputy.h"

#include <kj/debug.h>
#include <kj/vector.h>

namespace troupe::broker {
namespace {

constexpr uint64_t PAGE_BYTES = 4096;

// The used ring, §2.7.8: flags, idx, ring[size], avail_event.
constexpr uint64_t USED_RING_ALIGNMENT = 4;
constexpr size_t USED_INDEX_OFFSET = 2;
constexpr size_t USED_RING_OFFSET = 4;
constexpr size_t USED_ELEMENT_BYTES = 8;  // le32 id, le32 len
constexpr uint64_t usedRingBytes(uint32_t queueSize) {
  return 6 + USED_ELEMENT_BYTES * queueSize;
}

// One access of the word's own width, which the guest may be reading.
template <typename T>
void store(kj::byte* pointer, T value) {
  __atomic_store_n(reinterpret_cast<T*>(pointer), value, __ATOMIC_RELAXED);
}

}  // namespace

// A ring that cannot be is left out: the device finds that out by itself and asks for a reset.
void RamDeputy::activate(uint64_t number, kj::ArrayPtr<const QueueSettings> queues) {
  isSuspended = false;
  if (number == activation) return;
  activation = number;
  kj::Vector<UsedRing> usable(queues.size());
  for (auto& queue : queues) {
    bool isPowerOfTwo = queue.size != 0 && (queue.size & (queue.size - 1)) == 0;
    if (!isPowerOfTwo || queue.usedRing % USED_RING_ALIGNMENT != 0) continue;
    KJ_IF_MAYBE (bytes, ram.slice(queue.usedRing, usedRingBytes(queue.size))) {
      usable.add(UsedRing{queue.index, queue.size, bytes->begin()});
    }
  }
  rings = usable.releaseAsArray();
}

void RamDeputy::deactivate() {
  rings = nullptr;
  activation = 0;
}

uint16_t RamDeputy::returned(uint16_t queue) const {
  for (auto& ring : rings) {
    if (ring.queue == queue) return ring.next;
  }
  return 0;
}

uint64_t RamDeputy::returnChains(uint16_t queue, capnp::List<ReturnedChain>::Reader chains,
                                 capnp::List<MemoryRange>::Reader giveBack) {
  KJ_REQUIRE(!isSuspended, "the device has not been activated");
  auto& used = ringOf(queue);
  KJ_REQUIRE(chains.size() <= used.size, "more chains than the queue holds", chains.size());
  requireSound(giveBack);

  uint64_t bytes = 0;
  for (auto range : giveBack)
    bytes += ram.giveBack(range.getGuestAddress(), range.getSize());

  if (chains.size() == 0) return bytes;
  for (auto chain : chains) {
    kj::byte* element =
        used.ring + USED_RING_OFFSET + (used.next & (used.size - 1u)) * USED_ELEMENT_BYTES;
    store<uint32_t>(element, chain.getHead());
    store<uint32_t>(element + sizeof(uint32_t), chain.getWritten());
    ++used.next;
  }
  // The driver that sees the index sees the elements, and the zeroes (§2.7.8.2). Before the device
  // hears of it, it is there to be seen: the device then looks whether the driver wants an
  // interrupt.
  __atomic_store_n(reinterpret_cast<uint16_t*>(used.ring + USED_INDEX_OFFSET), used.next,
                   __ATOMIC_SEQ_CST);
  return bytes;
}

RamDeputy::UsedRing& RamDeputy::ringOf(uint16_t queue) {
  for (auto& ring : rings) {
    if (ring.queue == queue) return ring;
  }
  KJ_FAIL_REQUIRE("the queue is not active", queue);
}

void RamDeputy::requireSound(capnp::List<MemoryRange>::Reader ranges) const {
  if (ranges.size() == 0) return;
  KJ_REQUIRE(right == Right::GIVE_BACK_TOO, "the device may give no memory back");
  KJ_REQUIRE(ranges.size() <= MAX_RANGES, "too many ranges", ranges.size());
  uint64_t bytes = 0;
  uint64_t end = 0;
  for (auto range : ranges) {
    uint64_t address = range.getGuestAddress();
    uint64_t size = range.getSize();
    KJ_REQUIRE(address % PAGE_BYTES == 0 && size % PAGE_BYTES == 0, "not whole pages", address,
               size);
    KJ_REQUIRE(ram.slice(address, size) != nullptr, "not inside one piece of RAM", address, size);
    KJ_REQUIRE(address >= end, "not in ascending order", address, end);
    end = address + size;  // inside RAM, so it does not wrap
    bytes += size;
    KJ_REQUIRE(bytes <= MAX_BYTES, "too much at once", bytes);
  }
}

}  // namespace troupe::broker
