#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

namespace troupe::virtio {

// Room for the queues of any device, and a page of counters: 31 of 1024 descriptors take half of
// it.
constexpr size_t QUEUE_JOURNALS_BYTES = 1 << 20;

// A chain that so many processes in a row died of is answered with an error, and not tried again.
constexpr uint8_t DEADLY = 2;

// How a device goes on with what was in flight when the process before it died of itself. ALONE:
// one at a time and nothing beside it, so that the next death, if there is one, is the fault of
// that one alone. TOGETHER, for a device that has to hold several chains at once to serve any: the
// next death is the fault of all that it had taken again by then.
enum class Suspects { ALONE, TOGETHER };

// Which chains of one virtqueue a device process has taken and not yet returned, in memory that
// outlives the process: whoever takes its place goes on where it stopped (recover()).
//
// A process may die between any two stores, so each change is one store of a word, in an order in
// which every prefix makes sense:
//   taking a chain      sequence, then returnedAt = 0   (until the second it was never taken)
//   returning it        returnedAt = its place among all that were ever returned
//   telling the driver  the used index in guest memory, then `told`
// A chain is in flight unless its place is among those the driver was told of; and how far the
// driver was told stands in the used index itself, which may be one batch ahead of `told`.
//
// Whoever wrote it before may have been hostile: recover() reads each word once and believes
// nothing that contradicts the rest. Single-threaded.
class QueueJournal {
 public:
  // What a queue of `size` descriptors needs.
  static constexpr uint64_t bytesFor(uint32_t size) { return HEADER + uint64_t(size) * ENTRY; }

  // `memory`: aligned to 8, at least bytesFor() of the largest size the queue may have, and either
  // zero or written by another QueueJournal of the same length.
  explicit QueueJournal(kj::ArrayPtr<kj::byte> memory)
      : memory(memory.begin()), length(memory.size()) {}
  KJ_DISALLOW_COPY(QueueJournal);

  // The driver begins with an empty ring of `size` descriptors. `activation`: its number among all
  // the times the device was started, at least 1.
  void clear(uint16_t size, uint64_t activation);

  // Whether a process got as far as clear() with this number. If not, it took no chain.
  bool isOf(uint64_t activation) const { return load(memory + ACTIVATION) == activation; }

  // `head` was taken from the available ring.
  void take(uint16_t head) {
    store(entry(head), ++lastSequence | IN_HAND);
    store(entry(head) + RETURNED_AT, 0);
  }

  // `head` was put into the used ring.
  void giveBack(uint16_t head) { store(entry(head) + RETURNED_AT, ++returned); }

  // The driver was told of all that was given back.
  void tell() { store(memory + TOLD, returned); }

  // `head`, which recover() gave out, is begun with again.
  void takeAgain(uint16_t head) { store(entry(head), load(entry(head)) | IN_HAND); }

  // A chain that was in flight when the process before this one died.
  struct Pending {
    uint64_t sequence;  // of the order in which chains were taken; at least 1
    uint16_t head;
    uint8_t deaths;  // how many processes in a row died of their own fault while they had it
  };

  // What the process before left in flight, in the order it took them; from here on this one goes
  // on with them. `usedIndex`: what stands in the ring (§2.7.8). `ownFault`: the process died of
  // itself. None when what it wrote makes no sense: then only a reset of the device helps.
  kj::Maybe<kj::Array<Pending>> recover(uint16_t size, uint16_t usedIndex, bool ownFault);

 private:
  static constexpr uint64_t HEADER = 64;  // its own cache line
  static constexpr uint64_t TOLD = 0;
  static constexpr uint64_t ACTIVATION = 8;
  static constexpr uint64_t ENTRY = 16;
  static constexpr uint64_t RETURNED_AT = 8;
  static constexpr uint32_t DEATHS_SHIFT = 56;
  static constexpr uint64_t IN_HAND = 1ull << 55;  // the process that wrote last has taken it
  static constexpr uint64_t SEQUENCE_MASK = IN_HAND - 1;

  kj::byte* entry(uint16_t head) const { return memory + HEADER + head * ENTRY; }

  // Neither split nor moved across another by the compiler; the processor keeps stores in order,
  // and a death is none of its business.
  static void store(kj::byte* pointer, uint64_t value) {
    __atomic_store_n(reinterpret_cast<uint64_t*>(pointer), value, __ATOMIC_RELEASE);
  }
  static uint64_t load(const kj::byte* pointer) {
    return __atomic_load_n(reinterpret_cast<const uint64_t*>(pointer), __ATOMIC_RELAXED);
  }

  kj::byte* const memory;
  const size_t length;
  uint64_t lastSequence = 0;
  uint64_t returned = 0;  // since the driver began
};

}  // namespace troupe::virtio
