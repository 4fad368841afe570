#include <errno.h>
#include <kj/debug.h>

#include "devices/blk/qcow2/image.h"

namespace troupe::blk::qcow2 {
namespace {

// 256 MiB of counters: 8 TiB of file with the usual clusters.
constexpr uint64_t MOST_COUNTED = 128 << 20;

// How often each cluster of a file is used. What lies elsewhere is not counted: an entry that
// points there is unsound and is never used.
class Usage {
 public:
  explicit Usage(uint64_t clusters) : counts(kj::heapArray<uint16_t>(clusters)) {
    memset(counts.begin(), 0, counts.size() * sizeof(uint16_t));
  }
  void add(uint64_t first, uint64_t count) {
    for (uint64_t cluster = first; cluster < first + count && cluster < counts.size(); cluster++) {
      if (counts[cluster] < UINT16_MAX) counts[cluster]++;
    }
  }
  uint64_t operator[](uint64_t cluster) const {
    return cluster < counts.size() ? counts[cluster] : 0;
  }
  uint64_t size() const { return counts.size(); }

 private:
  kj::Array<uint16_t> counts;
};

void require(int error) {
  KJ_REQUIRE(error == 0,
             "TRP-blk-028: the qcow2 image was not closed, and its counts cannot be repaired; see "
             "`qemu-img check -r all`",
             strerror(-error));
}

// One L1 table and all that it leads to.
class Walk {
 public:
  Walk(ImageFile& file, const Geometry& geometry, Usage& usage)
      : file(file), geometry(geometry), usage(usage), table(geometry.clusterBytes()) {}

  void count(const AlignedBytes& l1, uint32_t entries) {
    forTables(l1, entries, [this](uint32_t, uint64_t place) {
      usage.add(geometry.clusterOf(place), 1);
      for (size_t at = 0; at < table.size(); at += 8)
        countEntry(load64(table.begin() + at));
    });
  }

  // Makes COPIED say whether there is one user, as it is to. Returns whether `l1` changed.
  bool markCopied(AlignedBytes& l1, uint32_t entries) {
    bool changed = false;
    forTables(l1, entries, [&](uint32_t i, uint64_t place) {
      for (size_t at = 0; at < table.size(); at += 8)
        markEntry(at);
      if (table.isDirty()) require(writeFully(file, table.all(), place));
      table.clean();
      uint64_t entry = place | (usage[geometry.clusterOf(place)] == 1 ? COPIED : 0);
      if (load64(l1.begin() + i * 8) == entry) return;
      store64(l1.begin() + i * 8, entry);
      changed = true;
    });
    return changed;
  }

 private:
  template <typename Visit>
  void forTables(const AlignedBytes& l1, uint32_t entries, Visit&& visit) {
    for (uint32_t i = 0; i < entries; i++) {
      uint64_t place = load64(l1.begin() + uint64_t(i) * 8) & OFFSET_MASK;
      if (place == 0) continue;
      require(readFully(file, table.all(), place));
      visit(i, place);
    }
  }

  void countEntry(uint64_t entry) {
    if (entry & COMPRESSED) {
      auto extent = compressedExtent(entry, geometry);
      uint64_t first = geometry.clusterOf(extent.offset);
      usage.add(first, geometry.clusterOf(extent.offset + extent.bytes - 1) - first + 1);
    } else if (uint64_t place = entry & OFFSET_MASK) {
      if (geometry.isAligned(place)) usage.add(geometry.clusterOf(place), 1);
    }
  }

  void markEntry(size_t at) {
    uint64_t entry = load64(table.begin() + at);
    uint64_t place = entry & OFFSET_MASK;
    if ((entry & COMPRESSED) || place == 0 || !geometry.isAligned(place)) return;
    uint64_t marked = (entry & ~COPIED) | (usage[geometry.clusterOf(place)] == 1 ? COPIED : 0);
    if (marked == entry) return;
    store64(table.begin() + at, marked);
    table.touch(at, 8);
  }

  ImageFile& file;
  const Geometry& geometry;
  Usage& usage;
  AlignedBytes table;
};

}  // namespace

// The counts of an image that was not closed may be too low (lazy refcounts) or too high. All users
// are counted anew and the counts set accordingly, and last of all the image is marked clean. Cut
// short, it is still marked dirty and is repaired the next time.
void Image::repair() {
  KJ_REQUIRE(counts().end() <= MOST_COUNTED,
             "TRP-blk-025: the qcow2 image was not closed and is too large to be repaired here; "
             "`qemu-img check -r all` does it",
             counts().end());
  require(beginWriting());  // bitmaps are not counted: they are not consistent any more
  Usage usage(counts().end());
  Walk walk(file, geometry, usage);
  usage.add(0, 1);
  usage.add(geometry.clusterOf(head.l1Offset), geometry.clustersFor(uint64_t(head.l1Entries) * 8));
  walk.count(l1, head.l1Entries);
  uint64_t snapshotsEnd = head.snapshotsOffset;
  forEachSnapshot(file, head, [&](const SnapshotTables& snapshot) {
    uint64_t clusters = geometry.clustersFor(uint64_t(snapshot.l1Entries) * 8);
    usage.add(geometry.clusterOf(snapshot.l1Offset), clusters);
    AlignedBytes table(clusters << geometry.clusterBits);
    require(qcow2::readFully(file, table.all(), snapshot.l1Offset));
    walk.count(table, snapshot.l1Entries);
    snapshotsEnd = snapshot.end;
  });
  if (head.snapshotCount > 0) {
    uint64_t first = geometry.clusterOf(head.snapshotsOffset);
    usage.add(first, geometry.clustersFor(snapshotsEnd) - first);
  }
  counts().forEachOwnCluster([&](uint64_t first, uint64_t count) { usage.add(first, count); });

  for (uint64_t cluster = 0; cluster < usage.size(); cluster++) {
    uint64_t said;
    require(counts().get(cluster, said));
    uint64_t used = usage[cluster];
    if (said == used || (used == UINT16_MAX && said > used)) continue;
    require(counts().ensureBlock(cluster));
    require(counts().set(cluster, used));
  }
  kj::Maybe<Refcounts::Place> freed;
  require(counts().writeBack(headerBlock, freed));
  require(file.sync());
  counts().written();
  KJ_IF_MAYBE (place, freed) {
    map.remove(place->firstCluster, place->count);
    release(place->firstCluster, place->count);
  }
  if (walk.markCopied(l1, head.l1Entries)) {
    require(writeFully(file, l1.all(), head.l1Offset));
  }
  require(file.sync());
  require(close());
}

}  // namespace troupe::blk::qcow2
