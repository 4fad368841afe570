#include <errno.h>
#include <limits.h>

#include "devices/blk/qcow2/image.h"
#include "devices/blk/qcow2/pieces.h"
#include "tests/fuzz/planted.h"

namespace troupe::blk::qcow2 {
namespace {

// What one step allocates at most: long enough for the file system, short enough for the others
// who want to allocate.
constexpr uint64_t MOST_RUN_BYTES = 2 << 20;

}  // namespace

// Before a step that changes the image: there is room in the journal for what it changes. Before
// the first one, what only software that knows all about it may leave set is cleared, and with lazy
// refcounts the image says that its counts are not to be trusted.
int Image::beginWriting() {
  if (mode == Access::READ_ONLY) return -EROFS;
  KJ_IF_MAYBE (kept, journal) {
    if (!kept->hasRoom()) {
      int error = commit();
      if (error != 0) return error;
    }
    if (!writing) kept->open();
  }
  if (writing) return 0;
  uint64_t end = fileEnd.load(std::memory_order_relaxed);
  if (geometry.inCluster(end) != 0) {
    // So that a place in the last cluster is a place in the file.
    end = geometry.clustersFor(end) << geometry.clusterBits;
    int error = file.truncate(end);
    if (error != 0) return error;
    fileEnd.store(end, std::memory_order_release);
  }
  uint64_t incompatible = head.incompatible;
  if (head.hasLazyRefcounts()) incompatible |= INCOMPATIBLE_DIRTY;
  if (head.version == 3 && (incompatible != head.incompatible || head.autoclear != 0)) {
    head.incompatible = incompatible;
    head.autoclear = 0;
    int error = writeHeader();
    if (error != 0) return error;
  }
  writing = true;
  return 0;
}

int Image::writeHeader() {
  if (head.version == 3) {
    store64(headerBlock.fields() + AT_INCOMPATIBLE, head.incompatible);
    store64(headerBlock.fields() + AT_AUTOCLEAR, head.autoclear);
  }
  int error = headerBlock.write();
  return error == 0 ? file.sync() : error;
}

void Image::change(Slot slot, uint32_t index, uint64_t entry) {
  slices.set(slot, index, entry, true);
  unsaved.store(true, std::memory_order_release);
  KJ_IF_MAYBE (kept, journal) {
    kept->add({(slices.sliceIn(slot) << sliceBits) + index, entry & ~VERIFIED});
  }
}

int Image::tableIsShared(uint64_t l1Index, bool& shared) {
  shared = false;
  if (ownedTables[l1Index]) return 0;
  uint64_t table = load64(l1.begin() + l1Index * 8) & OFFSET_MASK;
  uint64_t cluster = geometry.clusterOf(table);
  auto kind = map.find(cluster);
  uint64_t count;
  int error = counts().get(cluster, count);
  if (error != 0) return error;
  if (count == 0 || kind == nullptr) return -EIO;
  shared = count > 1 || KJ_ASSERT_NONNULL(kind) == MetadataMap::Kind::SNAPSHOT_L2;
  if (!shared) ownedTables[l1Index] = true;
  return 0;
}

// Sees to it that the L2 table is there and may be changed. What is in memory of it stays right.
int Image::ownTable(uint64_t l1Index) {
  uint64_t old = load64(l1.begin() + l1Index * 8) & OFFSET_MASK;
  if (old != 0) {
    bool shared;
    int error = tableIsShared(l1Index, shared);
    if (error != 0 || !shared) return error;
  }
  AlignedBytes table(geometry.clusterBytes());
  table.clear();
  if (old != 0) {
    int error = qcow2::readFully(file, table.all(), old);
    if (error != 0) return error;
  }
  uint64_t cluster;
  int error = counts().append(1, cluster);
  if (error != 0) return error;
  uint64_t place = cluster << geometry.clusterBits;
  error = writeFully(file, table.all(), place);
  if (error == 0 && !map.tryAdd(MetadataMap::Kind::ACTIVE_L2, cluster, 1)) error = -ENOSPC;
  if (error != 0) {
    counts().giveBack(cluster, 1);
    return error;
  }
  fileEnd.store(kj::max(fileEnd.load(), place + geometry.clusterBytes()));
  store64(l1.begin() + l1Index * 8, place | COPIED);
  l1.touch(l1Index * 8, 8);
  ownedTables[l1Index] = true;
  unsaved.store(true, std::memory_order_release);
  if (old != 0) {
    uint64_t oldCluster = geometry.clusterOf(old);
    // Used by a snapshot on, where it stays guarded.
    releasedUnsaved.add(Released{oldCluster, 1, 0});
  }
  return 0;
}

// Whether the cluster of `entry` may be overwritten, or has other users (`shared`).
int Image::verify(uint64_t entry, uint64_t offset, bool& shared) {
  uint64_t cluster = geometry.clusterOf(placeOf(entry));
  if (fuzz::isPlanted(fuzz::Bug::MAPPING_OUT_OF_FILE)) {
    shared = false;
    return 0;
  }
  if (placeOf(entry) >= fileEnd.load() || map.contains(cluster)) return -EIO;
  uint64_t count;
  int error = counts().get(cluster, count);
  if (error != 0) return error;
  bool tableShared;
  error = tableIsShared(l1IndexOf(offset), tableShared);
  if (error != 0) return error;
  // A shared table's clusters are shared. Counted once, they are in use by somebody uncounted.
  if (count == 0 || (count == 1 && tableShared)) return -EIO;
  shared = count > 1;
  return 0;
}

bool Image::readsAsZeroes(uint64_t entry, uint64_t offset) const {
  switch (kindOf(entry)) {
    case Kind::ZEROES:
      return true;
    case Kind::ABSENT:
      KJ_IF_MAYBE (below, backing) {
        return offset >= (*below)->size();
      }
      return true;
    default:
      return false;
  }
}

void Image::release(uint64_t first, uint64_t count) {
  for (uint64_t cluster = first; cluster < first + count; cluster++) {
    if (map.contains(cluster)) continue;  // an entry that lies; nothing of ours is given away
    if (releasedUnsaved.size() > 0) {
      Released& last = releasedUnsaved.back();
      if (last.first + last.count == cluster) {
        last.count++;
        continue;
      }
    }
    // Past this the space stays taken: `qemu-img check` calls it a leak.
    constexpr size_t MOST_RELEASED = 1 << 18;
    if (releasedUnsaved.size() >= MOST_RELEASED) return;
    releasedUnsaved.add(Released{cluster, 1, 0});
  }
}

void Image::unmap(uint64_t entry) {
  if (entry & COMPRESSED) {
    auto extent = compressedExtent(entry, geometry);
    uint64_t first = geometry.clusterOf(extent.offset);
    uint64_t last = geometry.clusterOf(extent.offset + extent.bytes - 1);
    release(first, last - first + 1);
  } else if (placeOf(entry) != 0) {
    release(geometry.clusterOf(placeOf(entry)), 1);
  }
}

int64_t Image::write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  Lock lock(mutex);
  return writeLocked(pieces, offset);
}

int64_t Image::writeLocked(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  int error = beginWriting();
  if (error != 0) return error;
  Slot slot;
  error = slotFor(offset, slot);
  if (error != 0) return error;
  uint32_t index = positionOf(offset).index;
  uint64_t entry = slices.get(slot, index);
  Kind kind = kindOf(entry);
  if (kind == Kind::UNSOUND || !slices.isChangeable(slot)) return -EIO;

  bool inPlace = false;
  if ((kind == Kind::DATA || kind == Kind::ZEROES) && placeOf(entry) != 0) {
    bool shared;
    error = verify(entry, offset, shared);
    if (error != 0) return error;
    inPlace = !shared;
    if (inPlace && kind == Kind::DATA) {
      slices.set(slot, index, entry | VERIFIED, false);
      return 0;
    }
  }
  error = ownTable(l1IndexOf(offset));
  if (error != 0) return error;

  uint64_t bytes = sizeOf(pieces);
  Refcounts::Taken taken{geometry.clusterOf(placeOf(entry)), 1, false};
  if (!inPlace) {
    if (releasedSaved.size() > 0) reclaim();
    error = counts().takeForData(clustersToAllocate(slot, offset, bytes), taken);
    if (error != 0) return error;
  }
  uint64_t clusterBegin = offset - geometry.inCluster(offset);
  uint64_t end = kj::min(offset + bytes, clusterBegin + (taken.count << geometry.clusterBits));
  error = writeClusters(pieces, offset, end, slot, taken);
  if (error != 0) {
    if (!inPlace) counts().giveBack(taken.first, taken.count);
    return error;
  }
  for (uint64_t i = 0; i < taken.count; i++) {
    uint64_t old = slices.get(slot, index + i);
    change(slot, index + i, ((taken.first + i) << geometry.clusterBits) | COPIED | VERIFIED);
    if (!inPlace) unmap(old);
  }
  return end - offset;
}

// How many clusters from that of `offset` on want a new place. The first one does.
uint64_t Image::clustersToAllocate(Slot slot, uint64_t offset, uint64_t bytes) {
  uint32_t index = positionOf(offset).index;
  uint64_t wanted = geometry.clustersFor(geometry.inCluster(offset) + bytes);
  wanted = kj::min(wanted, kj::max(MOST_RUN_BYTES >> geometry.clusterBits, uint64_t(1)));
  wanted = kj::min(wanted, (1ull << sliceBits) - index);
  for (uint64_t i = 1; i < wanted; i++) {
    uint64_t entry = slices.get(slot, index + i);
    Kind kind = kindOf(entry);
    bool free = kind == Kind::ABSENT || kind == Kind::COMPRESSED ||
                (kind == Kind::ZEROES && placeOf(entry) == 0);
    if (!free) return i;
  }
  return wanted;
}

int Image::writeClusters(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t end, Slot slot,
                         const Refcounts::Taken& taken) {
  uint64_t clusterBytes = geometry.clusterBytes();
  uint32_t index = positionOf(offset).index;
  uint64_t headBytes = geometry.inCluster(offset);
  uint64_t begin = offset - headBytes;
  uint64_t tailBytes = begin + taken.count * clusterBytes - end;
  uint64_t place = taken.first << geometry.clusterBits;
  uint64_t placeEnd = place + taken.count * clusterBytes;
  uint64_t headEntry = slices.get(slot, index);
  uint64_t tailEntry = slices.get(slot, index + taken.count - 1);

  // Behind the end of the file there are zeroes already.
  bool sparse = taken.fresh && (headBytes == 0 || readsAsZeroes(headEntry, begin)) &&
                (tailBytes == 0 || readsAsZeroes(tailEntry, end - geometry.inCluster(end)));

  if (pieces.size() > IOV_MAX - 2) return -EINVAL;
  size_t used = 0;
  uint64_t at = place + headBytes;
  if (headBytes > 0 && !sparse) {
    auto pad = headPad.all().slice(0, headBytes);
    int error = readCurrent(headEntry, pad, begin);
    if (error != 0) return error;
    writePieces[used++] = iovec{pad.begin(), pad.size()};
    at = place;
  }
  used += clip(pieces, 0, end - offset, writePieces.begin() + used);
  if (tailBytes > 0 && !sparse) {
    auto pad = tailPad.all().slice(0, tailBytes);
    int error = readCurrent(tailEntry, pad, end);
    if (error != 0) return error;
    writePieces[used++] = iovec{pad.begin(), pad.size()};
  }
  auto all = writePieces.slice(0, used);
  uint64_t total = sizeOf(all);
  uint64_t done = 0;
  while (done < total) {
    int64_t put = file.write(all, at + done);
    if (put < 0) return int(put);
    if (put == 0) return -EIO;
    done += put;
    if (done == total) break;
    auto rest = kj::heapArray<iovec>(all.size());
    size_t left = clip(all, put, total - done, rest.begin());
    memcpy(all.begin(), rest.begin(), left * sizeof(iovec));
    all = all.slice(0, left);
  }
  if (placeEnd > fileEnd.load()) {
    if (at + total < placeEnd) {
      int error = file.truncate(placeEnd);
      if (error != 0) return error;
    }
    fileEnd.store(placeEnd, std::memory_order_release);
  }
  return 0;
}

}  // namespace troupe::blk::qcow2
