#include <errno.h>

#include "devices/blk/qcow2/image.h"

namespace troupe::blk::qcow2 {

int Image::discard(uint64_t offset, uint64_t bytes) {
  // Clusters that are not wholly meant stay; the last one of the disk may be a part.
  uint64_t end = offset + bytes;
  uint64_t from = geometry.clustersFor(offset) << geometry.clusterBits;
  uint64_t to = end == size() ? end : end - geometry.inCluster(end);
  while (from < to) {
    Lock lock(mutex);
    int error = clearRange(from, to, Absence::DISCARD, from);
    if (error != 0) return error;
  }
  return 0;
}

int Image::writeZeroes(uint64_t offset, uint64_t bytes, Space space) {
  auto absence = space == Space::KEEP ? Absence::ZEROES_KEEP : Absence::ZEROES_GIVE_BACK;
  uint64_t end = offset + bytes;
  while (offset < end) {
    Lock lock(mutex);
    int error = clearRange(offset, end, absence, offset);
    if (error != 0) return error;
  }
  return 0;
}

// A step: to the end of a slice at most.
int Image::clearRange(uint64_t offset, uint64_t end, Absence absence, uint64_t& reached) {
  int error = beginWriting();
  if (error != 0) return error;
  Slot slot;
  error = slotFor(offset, slot);
  if (error != 0) return error;
  if (!slices.isChangeable(slot)) return -EIO;
  uint64_t slice = positionOf(offset).slice;
  while (offset < end && positionOf(offset).slice == slice) {
    uint64_t clusterEnd = (offset | (geometry.clusterBytes() - 1)) + 1;
    bool whole = geometry.inCluster(offset) == 0 && (clusterEnd <= end || end == size());
    uint64_t next = kj::min(clusterEnd, end);
    error = -EAGAIN;
    if (whole) error = clearCluster(slot, offset, absence);
    if (error == -EAGAIN) {
      error = zeroBytes(offset, next - offset);
      reached = next;
      return error;  // it may have used the slot for something else
    }
    if (error != 0) return error;
    offset = next;
    reached = next;
  }
  return 0;
}

// -EAGAIN: only written zeroes can say it.
int Image::clearCluster(Slot slot, uint64_t offset, Absence absence) {
  uint32_t index = positionOf(offset).index;
  uint64_t entry = slices.get(slot, index);
  Kind kind = kindOf(entry);
  if (kind == Kind::UNSOUND) return -EIO;
  bool hasPlace = !(entry & COMPRESSED) && placeOf(entry) != 0;
  bool showsBacking = !readsAsZeroes(0, offset);  // once it is absent
  uint64_t cleared = showsBacking ? ALL_ZEROES : 0;
  bool shared = false;
  if (hasPlace) {
    int error = verify(entry, offset, shared);
    if (error != 0) return error;
  }
  if (head.version == 2) {
    if (showsBacking || (hasPlace && absence == Absence::ZEROES_KEEP)) {
      return absence == Absence::DISCARD || readsAsZeroes(entry, offset) ? 0 : -EAGAIN;
    }
  } else if (absence == Absence::ZEROES_KEEP) {
    if (readsAsZeroes(entry, offset)) return 0;
    if (hasPlace && !shared) cleared = placeOf(entry) | COPIED | ALL_ZEROES;
  }
  if (cleared == (entry & ~VERIFIED)) return 0;
  // Absent and zeroes without a place read alike without a backing file.
  if (!hasPlace && !(entry & COMPRESSED) && readsAsZeroes(entry, offset)) return 0;
  int error = ownTable(l1IndexOf(offset));
  if (error != 0) return error;
  change(slot, index, cleared);
  if (placeOf(cleared) == 0) unmap(entry);
  return 0;
}

// Writes zeroes, all in one cluster.
int Image::zeroBytes(uint64_t offset, uint64_t bytes) {
  while (bytes > 0) {
    Slot slot;
    int error = slotFor(offset, slot);
    if (error != 0) return error;
    uint64_t entry = slices.get(slot, positionOf(offset).index);
    if (readsAsZeroes(entry, offset)) return 0;
    AlignedBytes zeroes(bytes);
    zeroes.clear();
    iovec piece{zeroes.begin(), bytes};
    int64_t put = writeLocked(kj::arrayPtr(&piece, 1), offset);
    if (put == 0) {
      // In place; nobody is given the place while we hold the lock.
      put = file.write(kj::arrayPtr(&piece, 1), placeOf(entry) + geometry.inCluster(offset));
      if (put == 0) put = -EIO;
    }
    if (put < 0) return int(put);
    offset += put;
    bytes -= put;
  }
  return 0;
}

int Image::grow(uint64_t bytes) {
  Lock lock(mutex);
  uint64_t old = size();
  if (bytes < old || bytes % 512 != 0) return -EINVAL;
  uint64_t entries = geometry.l1EntriesFor(bytes);
  if (bytes > MOST_BYTES || entries > MOST_L1_ENTRIES) return -EFBIG;
  int error = beginWriting();
  if (error != 0) return error;
  if (entries > head.l1Entries) {
    error = growL1(entries);
    if (error != 0) return error;
  }
  // What the last cluster has behind the old end, and what a longer backing file would show.
  uint64_t hidden = kj::min(bytes, geometry.clustersFor(old) << geometry.clusterBits);
  KJ_IF_MAYBE (below, backing) {
    hidden = kj::max(hidden, kj::min(bytes, (*below)->size()));
  }
  for (uint64_t at = old; at < hidden;) {
    error = clearRange(at, hidden, Absence::ZEROES_GIVE_BACK, at);
    if (error != 0) return error;
  }
  error = commit();
  if (error != 0) return error;
  store64(headerBlock.fields() + AT_SIZE, bytes);
  error = writeHeader();
  if (error != 0) {
    store64(headerBlock.fields() + AT_SIZE, old);
    return error;
  }
  diskBytes.store(bytes);
  head.size = bytes;
  return 0;
}

// A table that was appended and is not to be: the file ends where it began, so that a smaller one
// finds its place where a larger one did not.
void Image::undoAppend(uint64_t first, uint64_t count) {
  counts().giveBack(first, count);
  if (counts().end() != first + count) return;
  uint64_t place = first << geometry.clusterBits;
  if (file.size() <= place || file.truncate(place) == 0) counts().endAt(first);
}

int Image::growL1(uint64_t entries) {
  int error = commit();  // so that every entry is one the disk may know
  if (error != 0) return error;
  uint64_t count = geometry.clustersFor(entries * 8);
  uint64_t first;
  error = counts().append(count, first);
  if (error != 0) return error;
  AlignedBytes larger(count << geometry.clusterBits);
  larger.clear();
  memcpy(larger.begin(), l1.begin(), size_t(head.l1Entries) * 8);
  uint64_t place = first << geometry.clusterBits;
  error = writeFully(file, larger.all(), place);
  if (error == 0 && !map.tryAdd(MetadataMap::Kind::L1, first, count)) error = -ENOSPC;
  if (error != 0) {
    undoAppend(first, count);
    return error;
  }
  fileEnd.store(kj::max(fileEnd.load(), place + larger.size()));
  unsaved.store(true);
  error = commit();  // the table's own counts, and its bytes
  if (error != 0) return error;
  store64(headerBlock.fields() + AT_L1_OFFSET, place);
  store32(headerBlock.fields() + AT_L1_ENTRIES, entries);
  error = writeHeader();
  // Both tables say the same until the next commit, which goes to the old one again.
  if (error != 0) {
    store64(headerBlock.fields() + AT_L1_OFFSET, head.l1Offset);
    store32(headerBlock.fields() + AT_L1_ENTRIES, head.l1Entries);
    headerBlock.write();
    return error;
  }
  uint64_t oldFirst = geometry.clusterOf(head.l1Offset);
  uint64_t oldCount = geometry.clustersFor(uint64_t(head.l1Entries) * 8);
  map.remove(oldFirst, oldCount);
  release(oldFirst, oldCount);
  unsaved.store(true);  // what was released is given back by a commit that has something to do
  l1 = kj::mv(larger);
  head.l1Offset = place;
  head.l1Entries = entries;
  while (ownedTables.size() < entries)
    ownedTables.add(false);
  return 0;
}

}  // namespace troupe::blk::qcow2
