#include "sandbox/limits/memory_of_actors.h"

namespace troupe::sandbox {

void MemoryOfActors::begin(kj::StringPtr actor, uint64_t bytes, bool limited) {
  unlimited |= !limited;
  for (auto& one : all) {
    if (one.actor != actor) continue;
    one.bytes = kj::max(one.bytes, bytes);
    one.most = kj::max(one.most, ++one.living);
    return;
  }
  all.add(OfOne{kj::heapString(actor), bytes, 1, 1});
}

void MemoryOfActors::end(kj::StringPtr actor) {
  for (auto& one : all) {
    if (one.actor == actor && one.living > 0) --one.living;
  }
}

kj::Maybe<uint64_t> MemoryOfActors::total() const {
  if (unlimited) return nullptr;
  uint64_t bytes = 0;
  for (auto& one : all)
    bytes += one.bytes * one.most;
  return bytes;
}

}  // namespace troupe::sandbox
