#include <errno.h>

#include "devices/blk/qcow2/image.h"

namespace troupe::blk::qcow2 {

int Image::flush() {
  if (needsCommit()) {
    Lock lock(mutex);
    int error = needsCommit() ? commit() : file.sync();
    return error;
  }
  return file.sync();
}

// A failure leaves everything as changed as it was, so the next attempt writes all of it again.
int Image::commit() {
  if (!unsaved.load() && !l1.isDirty()) return 0;
  bool lazy = head.hasLazyRefcounts();
  if (!lazy) {
    kj::Maybe<Refcounts::Place> freed;
    int error = counts().writeBack(headerBlock, freed);
    KJ_IF_MAYBE (place, freed) {
      map.remove(place->firstCluster, place->count);
      release(place->firstCluster, place->count);
    }
    if (error != 0) return error;
  }
  int error = file.sync();  // the guest's bytes, and counts
  if (error != 0) return error;
  if (!lazy) counts().written();
  error = writeMappings();
  if (error != 0) return error;

  KJ_IF_MAYBE (kept, journal) {
    kept->clear();
  }
  slices.allWritten();
  l1.clean();
  unsaved.store(false, std::memory_order_release);
  for (Released& released : releasedUnsaved) {
    released.changes = transfers.changes();
    releasedSaved.add(released);
  }
  releasedUnsaved.clear();
  reclaim();
  return 0;
}

// L2 tables, then the L1 table that leads to new ones; on stable storage when it returns.
int Image::writeMappings() {
  for (Slot slot : slices.dirty()) {
    int error = writeSlice(slot);
    if (error != 0) return error;
  }
  if (l1.isDirty()) {
    int error = file.sync();
    if (error != 0) return error;
    auto part = l1.dirtyPart();
    error = writeFully(file, part.bytes, head.l1Offset + part.offset);
    if (error != 0) return error;
  }
  return file.sync();
}

int Image::writeSlice(Slot slot) {
  uint64_t slice = slices.sliceIn(slot);
  uint32_t perTableBits = geometry.l2Bits() - sliceBits;
  uint64_t table = load64(l1.begin() + (slice >> perTableBits) * 8) & OFFSET_MASK;
  uint64_t inTable = (slice & ((1ull << perTableBits) - 1)) * sliceBytes;
  for (uint32_t i = 0; i < 1u << sliceBits; i++) {
    uint64_t entry = slices.get(slot, i);
    if (!(entry & COMPRESSED)) entry &= ~VERIFIED;
    store64(sliceBuffer.begin() + i * 8, entry);
  }
  return writeFully(file, sliceBuffer.all(), table + inTable);
}

// Lowers the counts of what nobody uses or can still know. Those changes may reach the disk at any
// time: one that does not is a leak.
void Image::reclaim() {
  transfers.poll();
  size_t kept = 0;
  for (Released& released : releasedSaved) {
    if (transfers.changes() < released.changes + 2) {
      releasedSaved[kept++] = released;
      continue;
    }
    for (uint64_t cluster = released.first; cluster < released.first + released.count; cluster++) {
      uint64_t left;
      if (counts().decrement(cluster, left) != 0 || left > 0 || map.contains(cluster)) continue;
      file.punch(cluster << geometry.clusterBits, geometry.clusterBytes());  // if it can be
      counts().reconsider(cluster);
    }
  }
  releasedSaved.resize(kept);
}

int Image::close() {
  if (mode == Access::READ_ONLY) return 0;
  Lock lock(mutex);
  if (!writing) return 0;
  int error = commit();
  if (error != 0) return error;
  reclaim();
  kj::Maybe<Refcounts::Place> freed;
  error = counts().writeBack(headerBlock, freed);
  KJ_IF_MAYBE (place, freed) {
    map.remove(place->firstCluster, place->count);
    release(place->firstCluster, place->count);
  }
  if (error == 0) error = file.sync();
  if (error != 0) return error;
  counts().written();
  if (head.isDirty()) {
    head.incompatible &= ~INCOMPATIBLE_DIRTY;
    error = writeHeader();
    if (error != 0) {
      head.incompatible |= INCOMPATIBLE_DIRTY;
      return error;
    }
  }
  writing = false;
  KJ_IF_MAYBE (kept, journal) {
    kept->close();
  }
  return 0;
}

}  // namespace troupe::blk::qcow2
