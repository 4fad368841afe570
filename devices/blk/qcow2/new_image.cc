#include "devices/blk/qcow2/new_image.h"

#include <kj/debug.h>

#include "devices/blk/qcow2/aligned_bytes.h"
#include "devices/blk/qcow2/count_words.h"
#include "devices/blk/qcow2/format.h"

namespace troupe::blk::qcow2 {
namespace {

constexpr uint32_t REFCOUNT_ORDER = 4;

// What lies where, in clusters: the header, the refcount table, its blocks, the L1 table.
struct Layout {
  uint64_t l1Entries;
  uint64_t tableClusters;
  uint64_t blocks;
  uint64_t clusters;  // all of them

  uint64_t firstBlock() const { return 1 + tableClusters; }
  uint64_t firstOfL1() const { return firstBlock() + blocks; }
};

Layout layOut(uint64_t bytes, const Geometry& geometry) {
  Layout layout{geometry.l1EntriesFor(bytes), 1, 1, 0};
  uint64_t l1Clusters = geometry.clustersFor(layout.l1Entries * 8);
  // Blocks count themselves and their table, so each may need one more; that ends, since a block
  // counts many.
  for (;;) {
    layout.clusters = 1 + layout.tableClusters + layout.blocks + l1Clusters;
    uint64_t perBlock = geometry.refcountsPerBlock();
    uint64_t blocks = (layout.clusters + perBlock - 1) / perBlock;
    uint64_t tableClusters = geometry.clustersFor(blocks * 8);
    if (blocks == layout.blocks && tableClusters == layout.tableClusters) return layout;
    layout.blocks = kj::max(blocks, layout.blocks);
    layout.tableClusters = kj::max(tableClusters, layout.tableClusters);
  }
}

void requireDone(int error) {
  KJ_REQUIRE(error == 0, "TRP-disk-102: the image cannot be written", strerror(-error));
}

size_t storeBackingFormat(kj::byte* at, kj::StringPtr format) {
  store32(at, EXTENSION_BACKING_FORMAT);
  store32(at + 4, format.size());
  memcpy(at + 8, format.begin(), format.size());
  return 8 + ((format.size() + 7) & ~size_t(7));
}

void fillHeader(AlignedBytes& cluster, const NewImage& image, const Geometry& geometry,
                const Layout& layout) {
  kj::byte* at = cluster.begin();
  store32(at, MAGIC);
  store32(at + 4, 3);
  store32(at + 20, geometry.clusterBits);
  store64(at + AT_SIZE, image.bytes);
  store32(at + AT_L1_ENTRIES, layout.l1Entries);
  store64(at + AT_L1_OFFSET, layout.firstOfL1() << geometry.clusterBits);
  store64(at + AT_REFCOUNT_TABLE_OFFSET, geometry.clusterBytes());
  store32(at + AT_REFCOUNT_TABLE_CLUSTERS, layout.tableClusters);
  store64(at + AT_COMPATIBLE, image.lazyRefcounts ? COMPATIBLE_LAZY_REFCOUNTS : 0);
  store32(at + AT_REFCOUNT_ORDER, REFCOUNT_ORDER);
  store32(at + AT_HEADER_BYTES, HEADER_BYTES_V3);
  size_t end = HEADER_BYTES_V3;
  if (image.backingName.size() == 0) return;
  end += storeBackingFormat(at + end, image.backingFormat);
  end += 8;  // EXTENSION_END
  KJ_REQUIRE(image.backingName.size() <= MOST_BACKING_NAME_BYTES &&
                 end + image.backingName.size() <= cluster.size(),
             "TRP-disk-101: the name of the backing file is too long; it has at most 1023 bytes "
             "and fits the first cluster",
             image.backingName.size(), cluster.size());
  store64(at + AT_BACKING_OFFSET, end);
  store32(at + AT_BACKING_BYTES, image.backingName.size());
  memcpy(at + end, image.backingName.begin(), image.backingName.size());
}

void writeBlocks(ImageFile& file, const Geometry& geometry, const Layout& layout) {
  AlignedBytes block(geometry.clusterBytes());
  uint64_t perBlock = geometry.refcountsPerBlock();
  for (uint64_t i = 0; i < layout.blocks; i++) {
    block.clear();
    uint64_t used = kj::min(perBlock, layout.clusters - kj::min(layout.clusters, i * perBlock));
    for (uint64_t slot = 0; slot < used; slot++)
      storeCount(block.begin(), REFCOUNT_ORDER, slot, 1);
    requireDone(writeFully(file, block.all(), (layout.firstBlock() + i) << geometry.clusterBits));
  }
}

}  // namespace

void makeImage(ImageFile& file, const NewImage& image) {
  KJ_REQUIRE(image.clusterBits >= LEAST_CLUSTER_BITS && image.clusterBits <= MOST_CLUSTER_BITS,
             "TRP-disk-101: a qcow2 image has clusters of 512 bytes to 2 MiB", image.clusterBits);
  Geometry geometry{image.clusterBits, REFCOUNT_ORDER};
  KJ_REQUIRE(image.bytes >= 512 && image.bytes % 512 == 0 && image.bytes <= MOST_BYTES &&
                 geometry.l1EntriesFor(image.bytes) <= MOST_L1_ENTRIES,
             "TRP-disk-101: the disk is too large for clusters of this size, or no multiple of "
             "512 bytes",
             image.bytes, geometry.clusterBytes());
  Layout layout = layOut(image.bytes, geometry);
  AlignedBytes first(geometry.clusterBytes());
  first.clear();
  fillHeader(first, image, geometry, layout);

  requireDone(file.truncate(layout.clusters << geometry.clusterBits));  // the L1 table is zeroes
  writeBlocks(file, geometry, layout);
  AlignedBytes table(layout.tableClusters << geometry.clusterBits);
  table.clear();
  for (uint64_t i = 0; i < layout.blocks; i++)
    store64(table.begin() + i * 8, (layout.firstBlock() + i) << geometry.clusterBits);
  requireDone(writeFully(file, table.all(), geometry.clusterBytes()));
  requireDone(writeFully(file, first.all(), 0));
  requireDone(file.sync());
}

}  // namespace troupe::blk::qcow2
