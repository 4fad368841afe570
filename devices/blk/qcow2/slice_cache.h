#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/vector.h>

#include <atomic>
#include <cstdint>

namespace troupe::blk::qcow2 {

// Parts of L2 tables in memory ("slices"), for any number of threads that look entries up without
// a lock or a shared write, and one at a time that changes them (under the image's lock).
//
// A slice is known by its number in the guest's disk: its place in the file may change, what it
// says does not. Slots form sets of eight. A slot's sequence is odd while it is filled and counts
// on, so whoever read an entry meanwhile sees that it was none.
class SliceCache {
 public:
  SliceCache(uint32_t entriesPerSlice, size_t slots);

  // Any thread: the entry at `index` of `slice`; false if the slice is not here (or just leaves).
  bool lookup(uint64_t slice, uint32_t index, uint64_t& entry) const {
    const Set& set = sets[setOf(slice)];
    for (uint32_t way = 0; way < WAYS; way++) {
      if (set.slices[way].load(std::memory_order_relaxed) != slice) continue;
      uint32_t sequence = set.sequences[way].load(std::memory_order_acquire);
      if (sequence % 2 == 1) return false;
      if (set.slices[way].load(std::memory_order_relaxed) != slice) return false;
      // Sequentially consistent, as are stores of entries: see InFlight.
      entry = words[wordOf(setOf(slice) * WAYS + way, index)].load();
      return set.sequences[way].load(std::memory_order_relaxed) == sequence;
    }
    return false;
  }

  // The rest: one thread at a time.
  using Slot = size_t;
  kj::Maybe<Slot> find(uint64_t slice) const;
  // A slot that `slice` may take; none if what is there has to be written first.
  kj::Maybe<Slot> room(uint64_t slice);
  void fill(Slot slot, uint64_t slice, kj::ArrayPtr<const uint64_t> entries, bool changeable);

  uint64_t get(Slot slot, uint32_t index) const { return words[wordOf(slot, index)].load(); }
  // `isChange`: it differs from the file.
  void set(Slot slot, uint32_t index, uint64_t entry, bool isChange);
  bool isChangeable(Slot slot) const { return states[slot].changeable; }
  uint64_t sliceIn(Slot slot) const { return sets[slot / WAYS].slices[slot % WAYS].load(); }

  kj::ArrayPtr<const Slot> dirty() const { return dirtySlots; }
  void allWritten();

 private:
  static constexpr uint32_t WAYS = 8;
  static constexpr uint64_t NONE = UINT64_MAX;
  struct alignas(64) Set {
    std::atomic<uint64_t> slices[WAYS];
    std::atomic<uint32_t> sequences[WAYS];
    uint32_t nextVictim;
  };
  struct State {
    bool isDirty;
    bool changeable;
  };

  size_t setOf(uint64_t slice) const { return (slice * 0x9e3779b97f4a7c15) >> setShift; }
  size_t wordOf(Slot slot, uint32_t index) const { return slot * entriesPerSlice + index; }

  const uint32_t entriesPerSlice;
  uint32_t setShift;
  kj::Array<Set> sets;
  kj::Array<State> states;
  kj::Array<std::atomic<uint64_t>> words;
  kj::Vector<Slot> dirtySlots;
};

}  // namespace troupe::blk::qcow2
