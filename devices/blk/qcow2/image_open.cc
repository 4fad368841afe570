#include <errno.h>
#include <kj/debug.h>
#include <limits.h>

#include "devices/blk/qcow2/image.h"

namespace troupe::blk::qcow2 {
namespace {

constexpr size_t SLICE_CACHE_BYTES = 16 << 20;  // 128 GiB of disk with the usual clusters
constexpr uint32_t MOST_SLICE_BITS = 9;         // 4 KiB

uint32_t sliceBitsFor(const Geometry& geometry) {
  return kj::min(geometry.l2Bits(), MOST_SLICE_BITS);
}

size_t slotsFor(const Header& header, uint32_t sliceBits) {
  uint64_t slices = (header.geometry.clustersFor(header.size) >> sliceBits) + 1;
  // Room to spare: slices of one disk do not spread evenly over the sets.
  return kj::min(slices * 2, uint64_t(SLICE_CACHE_BYTES >> (sliceBits + 3)));
}

void requireRead(int error, kj::StringPtr what) {
  KJ_REQUIRE(error == 0, "TRP-blk-026: the qcow2 image cannot be read", what, strerror(-error));
}

}  // namespace

Image::Image(ImageFile& file, uint8_t index, Header&& header, kj::ArrayPtr<const kj::byte> start,
             Access access, kj::Maybe<kj::Own<Layer>> backingParam, kj::Maybe<MappingJournal&> kept)
    : file(file),
      index(index),
      head(kj::mv(header)),
      headerBlock(file, start),
      mode(access),
      geometry(head.geometry),
      sliceBits(sliceBitsFor(geometry)),
      sliceBytes(8ull << sliceBits),
      backing(kj::mv(backingParam)),
      decompressor(makeDecompressor(head.compression)),
      diskBytes(head.size & ~511ull),
      fileEnd(file.size()),
      slices(1u << sliceBits, slotsFor(head, sliceBits)),
      l1(geometry.clustersFor(uint64_t(head.l1Entries) * 8) << geometry.clusterBits),
      sliceBuffer(sliceBytes),
      clusterBuffer(geometry.clusterBytes()),
      compressedBuffer((geometry.clusterBytes() << 1) + 2 * 4096),
      headPad(access == Access::READ_WRITE ? geometry.clusterBytes() : 0),
      tailPad(access == Access::READ_WRITE ? geometry.clusterBytes() : 0),
      writePieces(kj::heapArray<iovec>(IOV_MAX)) {
  KJ_REQUIRE(geometry.clusterBytes() >= file.blockBytes(),
             "TRP-blk-027: the clusters of the qcow2 image are smaller than what O_DIRECT can "
             "transfer; open it without direct",
             geometry.clusterBytes(), file.blockBytes());
  requireRead(qcow2::readFully(file, l1.all(), head.l1Offset), "L1 table");
  if (mode == Access::READ_ONLY) return;

  for (uint32_t i = 0; i < head.l1Entries; i++)
    ownedTables.add(false);
  map.add(MetadataMap::Kind::HEADER, 0, 1);
  map.add(MetadataMap::Kind::L1, geometry.clusterOf(head.l1Offset),
          l1.size() / geometry.clusterBytes());
  claimSnapshots();
  claimActiveL2Tables();
  refcounts = kj::heap<Refcounts>(file, head, map);
  KJ_IF_MAYBE (left, kept) {
    takeOver(*left);
  } else if (head.isDirty()) {
    repair();
  }
}

void Image::claimActiveL2Tables() {
  for (uint64_t i = 0; i < head.l1Entries; i++) {
    uint64_t entry = load64(l1.begin() + i * 8);
    if (entry == 0) continue;
    uint64_t place = entry & OFFSET_MASK;
    KJ_REQUIRE((entry & L1_RESERVED) == 0 && place != 0 && geometry.isAligned(place) &&
                   place < fileEnd.load(),
               "TRP-blk-023: the qcow2 image is corrupt: an L2 table lies where none can be; see "
               "`qemu-img check`",
               i, kj::hex(entry));
    KJ_IF_MAYBE (kind, map.find(geometry.clusterOf(place))) {
      if (*kind == MetadataMap::Kind::SNAPSHOT_L2) continue;
    }
    map.add(MetadataMap::Kind::ACTIVE_L2, geometry.clusterOf(place), 1);
  }
}

// Snapshots are not to be seen here, only kept.
void Image::claimSnapshots() {
  uint64_t at = head.snapshotsOffset;
  forEachSnapshot(file, head, [&](const SnapshotTables& snapshot) {
    uint64_t clusters = geometry.clustersFor(uint64_t(snapshot.l1Entries) * 8);
    map.add(MetadataMap::Kind::SNAPSHOTS, geometry.clusterOf(snapshot.l1Offset), clusters);
    claimSnapshotL2Tables(snapshot);
    at = snapshot.end;
  });
  if (head.snapshotCount == 0) return;
  uint64_t first = geometry.clusterOf(head.snapshotsOffset);
  map.add(MetadataMap::Kind::SNAPSHOTS, first, geometry.clustersFor(at) - first);
}

void Image::claimSnapshotL2Tables(const SnapshotTables& snapshot) {
  AlignedBytes table(geometry.clustersFor(uint64_t(snapshot.l1Entries) * 8)
                     << geometry.clusterBits);
  requireRead(qcow2::readFully(file, table.all(), snapshot.l1Offset), "L1 table of a snapshot");
  for (uint64_t i = 0; i < snapshot.l1Entries; i++) {
    uint64_t entry = load64(table.begin() + i * 8);
    uint64_t place = entry & OFFSET_MASK;
    if (entry == 0) continue;
    KJ_REQUIRE((entry & L1_RESERVED) == 0 && place != 0 && geometry.isAligned(place) &&
                   place < fileEnd.load(),
               "TRP-blk-023: the qcow2 image is corrupt: an L2 table of a snapshot lies where none "
               "can be; see `qemu-img check`",
               i, kj::hex(entry));
    map.add(MetadataMap::Kind::SNAPSHOT_L2, geometry.clusterOf(place), 1);
  }
}

}  // namespace troupe::blk::qcow2
