#include "devices/blk/qcow2/slice_cache.h"

namespace troupe::blk::qcow2 {

SliceCache::SliceCache(uint32_t entriesPerSlice, size_t slots) : entriesPerSlice(entriesPerSlice) {
  uint32_t setBits = 1;
  while ((size_t(WAYS) << setBits) < slots)
    setBits++;
  setShift = 64 - setBits;
  sets = kj::heapArray<Set>(size_t(1) << setBits);
  for (Set& set : sets) {
    for (uint32_t way = 0; way < WAYS; way++) {
      set.slices[way].store(NONE);
      set.sequences[way].store(0);
    }
    set.nextVictim = 0;
  }
  states = kj::heapArray<State>(sets.size() * WAYS);
  for (State& state : states)
    state = State{false, false};
  // Not touched before it is filled: pages that were never needed do not exist.
  words = kj::heapArray<std::atomic<uint64_t>>(states.size() * entriesPerSlice);
}

kj::Maybe<SliceCache::Slot> SliceCache::find(uint64_t slice) const {
  const Set& set = sets[setOf(slice)];
  for (uint32_t way = 0; way < WAYS; way++) {
    if (set.slices[way].load() == slice) return setOf(slice) * WAYS + way;
  }
  return nullptr;
}

kj::Maybe<SliceCache::Slot> SliceCache::room(uint64_t slice) {
  Set& set = sets[setOf(slice)];
  for (uint32_t way = 0; way < WAYS; way++) {
    if (set.slices[way].load() == NONE) return setOf(slice) * WAYS + way;
  }
  for (uint32_t i = 0; i < WAYS; i++) {
    Slot slot = setOf(slice) * WAYS + set.nextVictim++ % WAYS;
    if (!states[slot].isDirty) return slot;
  }
  return nullptr;
}

void SliceCache::fill(Slot slot, uint64_t slice, kj::ArrayPtr<const uint64_t> entries,
                      bool changeable) {
  Set& set = sets[slot / WAYS];
  auto& sequence = set.sequences[slot % WAYS];
  sequence.fetch_add(1);  // odd; nothing below can be seen before
  set.slices[slot % WAYS].store(slice);
  for (uint32_t i = 0; i < entriesPerSlice; i++)
    words[wordOf(slot, i)].store(entries[i], std::memory_order_release);
  states[slot] = State{false, changeable};
  sequence.fetch_add(1);
}

void SliceCache::set(Slot slot, uint32_t index, uint64_t entry, bool isChange) {
  words[wordOf(slot, index)].store(entry);
  if (!isChange || states[slot].isDirty) return;
  states[slot].isDirty = true;
  dirtySlots.add(slot);
}

void SliceCache::allWritten() {
  for (Slot slot : dirtySlots)
    states[slot].isDirty = false;
  dirtySlots.clear();
}

}  // namespace troupe::blk::qcow2
