#include "devices/blk/qcow2/image.h"

namespace troupe::blk::qcow2 {

// What locate() and locateForWrite() do without the lock.

Image::Kind Image::kindOf(uint64_t entry) const {
  if (entry & COMPRESSED) return Kind::COMPRESSED;
  if (entry & UNSOUND_ENTRY) return Kind::UNSOUND;
  uint64_t place = placeOf(entry);
  if (!geometry.isAligned(place)) return Kind::UNSOUND;
  if (entry & ALL_ZEROES) return Kind::ZEROES;
  return place == 0 ? Kind::ABSENT : Kind::DATA;
}

bool Image::lookup(uint64_t offset, uint64_t& entry) const {
  Position position = positionOf(offset);
  return slices.lookup(position.slice, position.index, entry);
}

// How many of `bytes` bytes from `offset` on are in this cluster and those that follow while
// same(entry, how many clusters after this one).
template <typename Same>
uint64_t Image::runBytes(uint64_t offset, uint64_t bytes, Same&& same) const {
  uint64_t run = geometry.clusterBytes() - geometry.inCluster(offset);
  for (uint64_t i = 1; run < bytes; i++) {
    uint64_t entry;
    if (!lookup(offset + run, entry) || !same(entry, i)) break;
    run += geometry.clusterBytes();
  }
  return kj::min(run, bytes);
}

Extent Image::locate(uint64_t offset, uint64_t bytes) const {
  const Extent slow{Extent::Kind::SLOW, 0, 0, 1};
  uint64_t entry;
  if (!lookup(offset, entry)) return slow;
  Kind kind = kindOf(entry);
  uint64_t place = placeOf(entry);
  switch (kind) {
    case Kind::DATA: {
      uint64_t at = place + geometry.inCluster(offset);
      uint64_t end = fileEnd.load(std::memory_order_acquire);
      if (at >= end) return slow;
      uint64_t run = runBytes(offset, bytes, [&](uint64_t next, uint64_t i) {
        return kindOf(next) == Kind::DATA && placeOf(next) == place + (i << geometry.clusterBits);
      });
      return {Extent::Kind::DATA, index, at, kj::min(run, end - at)};
    }
    case Kind::ZEROES:
    case Kind::ABSENT:
      break;
    default:
      return slow;
  }
  uint64_t run =
      runBytes(offset, bytes, [&](uint64_t next, uint64_t) { return kindOf(next) == kind; });
  if (kind == Kind::ABSENT) {
    KJ_IF_MAYBE (below, backing) {
      uint64_t end = (*below)->size();
      if (offset < end) return (*below)->locate(offset, kj::min(run, end - offset));
    }
  }
  return {Extent::Kind::ZEROES, index, 0, run};
}

Extent Image::locateForWrite(uint64_t offset, uint64_t bytes) const {
  uint64_t entry;
  if (!lookup(offset, entry) || (entry & COMPRESSED) || !(entry & VERIFIED)) {
    return {Extent::Kind::SLOW, 0, 0, 1};
  }
  uint64_t place = placeOf(entry);
  uint64_t run = runBytes(offset, bytes, [&](uint64_t next, uint64_t i) {
    return !(next & COMPRESSED) && (next & VERIFIED) &&
           placeOf(next) == place + (i << geometry.clusterBits);
  });
  return {Extent::Kind::DATA, index, place + geometry.inCluster(offset), run};
}

}  // namespace troupe::blk::qcow2
