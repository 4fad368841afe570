#include "devices/blk/qcow2/testing/blank_image.h"

#include <kj/debug.h>

#include "devices/blk/qcow2/format.h"

namespace troupe::blk::qcow2::testing {

kj::Array<kj::byte> makeBlank(const BlankImage& image) {
  Geometry geometry{image.clusterBits, image.refcountOrder};
  uint64_t l1Entries = geometry.l1EntriesFor(image.size);
  uint64_t clusters = 3 + geometry.clustersFor(l1Entries * 8);
  KJ_REQUIRE(clusters <= geometry.refcountsPerBlock(), "one refcount block is all there is");
  auto bytes = kj::heapArray<kj::byte>(clusters << image.clusterBits);
  memset(bytes.begin(), 0, bytes.size());
  kj::byte* at = bytes.begin();
  store32(at, MAGIC);
  store32(at + 4, image.version);
  store32(at + 20, image.clusterBits);
  store64(at + AT_SIZE, image.size);
  store32(at + AT_L1_ENTRIES, l1Entries);
  store64(at + AT_L1_OFFSET, 3ull << image.clusterBits);
  store64(at + AT_REFCOUNT_TABLE_OFFSET, 1ull << image.clusterBits);
  store32(at + AT_REFCOUNT_TABLE_CLUSTERS, 1);
  size_t end = HEADER_BYTES_V2;
  if (image.version == 3) {
    store64(at + 80, image.lazyRefcounts ? COMPATIBLE_LAZY_REFCOUNTS : 0);
    store32(at + 96, image.refcountOrder);
    store32(at + 100, HEADER_BYTES_V3);
    end = HEADER_BYTES_V3;
  }
  if (image.backingFormat.size() > 0) {
    store32(at + end, EXTENSION_BACKING_FORMAT);
    store32(at + end + 4, image.backingFormat.size());
    memcpy(at + end + 8, image.backingFormat.begin(), image.backingFormat.size());
    end += 8 + ((image.backingFormat.size() + 7) & ~size_t(7));
  }
  end += 8;  // EXTENSION_END
  if (image.backingName.size() > 0) {
    store64(at + 8, end);
    store32(at + 16, image.backingName.size());
    memcpy(at + end, image.backingName.begin(), image.backingName.size());
  }
  store64(at + (1ull << image.clusterBits), 2ull << image.clusterBits);
  kj::byte* block = at + (2ull << image.clusterBits);
  uint32_t bits = 1u << image.refcountOrder;
  for (uint64_t i = 0; i < clusters; i++) {
    if (bits >= 8) {
      block[i * bits / 8 + bits / 8 - 1] = 1;
    } else {
      block[i * bits / 8] |= 1 << (i * bits % 8);
    }
  }
  return bytes;
}

}  // namespace troupe::blk::qcow2::testing
