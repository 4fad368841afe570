#include <errno.h>
#include <limits.h>

#include "devices/blk/qcow2/image.h"
#include "devices/blk/qcow2/pieces.h"

namespace troupe::blk::qcow2 {

int Image::slotFor(uint64_t offset, Slot& slot) {
  uint64_t slice = positionOf(offset).slice;
  KJ_IF_MAYBE (found, slices.find(slice)) {
    slot = *found;
    return 0;
  }
  auto room = slices.room(slice);
  if (room == nullptr) {
    int error = commit();
    if (error != 0) return error;
    room = slices.room(slice);
  }
  slot = KJ_ASSERT_NONNULL(room);
  return loadSlice(slice, slot);
}

int Image::loadSlice(uint64_t slice, Slot slot) {
  uint32_t perTableBits = geometry.l2Bits() - sliceBits;
  uint64_t l1Index = slice >> perTableBits;
  if (l1Index >= head.l1Entries) return -EIO;
  uint64_t l1Entry = load64(l1.begin() + l1Index * 8);
  uint64_t table = l1Entry & OFFSET_MASK;
  bool changeable = true;
  if (table == 0) {
    if ((l1Entry & L1_RESERVED) != 0) return -EIO;
    sliceBuffer.clear();
  } else {
    bool sound = (l1Entry & L1_RESERVED) == 0 && geometry.isAligned(table) &&
                 table < fileEnd.load(std::memory_order_relaxed);
    if (!sound) return -EIO;
    uint64_t inTable = (slice & ((1ull << perTableBits) - 1)) * sliceBytes;
    int error = readFully(file, sliceBuffer.all(), table + inTable);
    if (error != 0) return error;
  }
  auto entries = kj::heapArray<uint64_t>(size_t(1) << sliceBits);
  uint64_t allowed = COPIED | OFFSET_MASK | (head.version == 3 ? ALL_ZEROES : 0);
  for (size_t i = 0; i < entries.size(); i++) {
    uint64_t entry = load64(sliceBuffer.begin() + i * 8);
    if (!(entry & COMPRESSED) && (entry & ~allowed)) {
      // It would be lost when the slice is written, so the slice is not to be.
      entry = UNSOUND_ENTRY;
      changeable = false;
    }
    entries[i] = entry;
  }
  slices.fill(slot, slice, entries, changeable);
  return 0;
}

int Image::prepare(uint64_t offset) {
  uint64_t entry = 0;
  if (!lookup(offset, entry)) {
    Lock lock(mutex);
    Slot slot;
    int error = slotFor(offset, slot);
    if (error != 0) return error;
    entry = slices.get(slot, positionOf(offset).index);
  }
  if (kindOf(entry) == Kind::ABSENT) {
    KJ_IF_MAYBE (below, backing) {
      if (offset < (*below)->size()) return (*below)->prepare(offset);
    }
  }
  return 0;
}

int64_t Image::read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  uint64_t inside = kj::min(geometry.clusterBytes() - geometry.inCluster(offset), size() - offset);
  uint64_t bytes = kj::min(sizeOf(pieces), inside);
  uint64_t entry;
  {
    Lock lock(mutex);
    Slot slot;
    int error = slotFor(offset, slot);
    if (error != 0) return error;
    entry = slices.get(slot, positionOf(offset).index);
    switch (kindOf(entry)) {
      case Kind::DATA:
        return readHere(pieces, bytes, placeOf(entry) + geometry.inCluster(offset));
      case Kind::COMPRESSED:
        return readCompressed(pieces, bytes, offset, entry);
      case Kind::UNSOUND:
        return -EIO;
      default:
        break;
    }
  }
  if (kindOf(entry) == Kind::ABSENT) {
    KJ_IF_MAYBE (below, backing) {
      uint64_t end = (*below)->size();
      if (offset < end) {
        iovec clipped[IOV_MAX];
        if (pieces.size() > IOV_MAX) return -EINVAL;
        size_t count = clip(pieces, 0, kj::min(bytes, end - offset), clipped);
        return (*below)->read(kj::arrayPtr(clipped, count), offset);
      }
    }
  }
  storeZeroes(pieces, 0, bytes);
  return bytes;
}

// Of a cluster that lies in the file, at least in part: what is behind the end is zeroes.
int64_t Image::readHere(kj::ArrayPtr<const iovec> pieces, uint64_t bytes, uint64_t place) {
  uint64_t clusterBegin = place - geometry.inCluster(place);
  if (clusterBegin >= fileEnd.load(std::memory_order_relaxed)) return -EIO;
  if (pieces.size() > IOV_MAX) return -EINVAL;
  iovec clipped[IOV_MAX];
  size_t count = clip(pieces, 0, bytes, clipped);
  int64_t got = file.read(kj::arrayPtr(clipped, count), place);
  if (got < 0 || uint64_t(got) == bytes) return got;
  if (place + got < fileEnd.load(std::memory_order_relaxed) && got > 0) return got;
  storeZeroes(pieces, got, bytes - got);
  return bytes;
}

int64_t Image::readCompressed(kj::ArrayPtr<const iovec> pieces, uint64_t bytes, uint64_t offset,
                              uint64_t entry) {
  if (unpackedEntry != entry) {
    auto extent = compressedExtent(entry, geometry);
    if (extent.offset >= fileEnd.load(std::memory_order_relaxed)) return -EIO;
    uint64_t unit = file.blockBytes();
    uint64_t begin = extent.offset & ~(unit - 1);
    uint64_t end = (extent.offset + extent.bytes + unit - 1) & ~(unit - 1);
    if (end - begin > compressedBuffer.size()) return -EIO;
    unpackedEntry = 0;
    int error = readFully(file, compressedBuffer.all().slice(0, end - begin), begin);
    if (error != 0) return error;
    auto packed =
        compressedBuffer.all().slice(extent.offset - begin, extent.offset - begin + extent.bytes);
    if (!decompressor->unpack(packed, clusterBuffer.all())) return -EIO;
    unpackedEntry = entry;
  }
  uint64_t from = geometry.inCluster(offset);
  storeBytes(pieces, clusterBuffer.all().slice(from, from + bytes));
  return bytes;
}

// What the guest would read from `offset` on, all in the cluster that has `entry`; under the lock.
int Image::readCurrent(uint64_t entry, kj::ArrayPtr<kj::byte> bytes, uint64_t offset) {
  iovec piece{bytes.begin(), bytes.size()};
  int64_t got = 0;
  switch (kindOf(entry)) {
    case Kind::DATA:
      for (size_t done = 0; done < bytes.size(); done += got) {
        piece = iovec{bytes.begin() + done, bytes.size() - done};
        got = readHere(kj::arrayPtr(&piece, 1), bytes.size() - done,
                       placeOf(entry) + geometry.inCluster(offset) + done);
        if (got < 0) return int(got);
      }
      return 0;
    case Kind::COMPRESSED:
      got = readCompressed(kj::arrayPtr(&piece, 1), bytes.size(), offset, entry);
      return got < 0 ? int(got) : 0;
    case Kind::UNSOUND:
      return -EIO;
    case Kind::ABSENT:
      KJ_IF_MAYBE (below, backing) {
        // A backing file that is longer shows no more of itself than there is disk.
        size_t inside = offset >= size() ? 0 : kj::min(bytes.size(), size() - offset);
        memset(bytes.begin() + inside, 0, bytes.size() - inside);
        return qcow2::readFully(**below, bytes.slice(0, inside), offset);
      }
      break;
    default:
      break;
  }
  memset(bytes.begin(), 0, bytes.size());
  return 0;
}

}  // namespace troupe::blk::qcow2
