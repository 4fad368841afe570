#include "devices/blk/qcow2/metadata_map.h"

#include <kj/debug.h>

namespace troupe::blk::qcow2 {

void MetadataMap::add(Kind kind, uint64_t first, uint64_t count) {
  KJ_REQUIRE(count <= MOST_CLUSTERS && clusters.size() + count <= MOST_CLUSTERS,
             "TRP-blk-025: the qcow2 image has more tables than can be guarded; larger clusters "
             "need fewer: `qemu-img convert -O qcow2`");
  KJ_REQUIRE(tryAdd(kind, first, count),
             "TRP-blk-023: the qcow2 image is corrupt: two of its tables overlap; see "
             "`qemu-img check`",
             first);
}

bool MetadataMap::tryAdd(Kind kind, uint64_t first, uint64_t count) {
  if (clusters.size() + count > MOST_CLUSTERS) return false;
  for (uint64_t i = 0; i < count; i++) {
    auto inserted = clusters.emplace(first + i, kind);
    if (inserted.second) continue;
    // Snapshots share tables with each other.
    if (kind == Kind::SNAPSHOT_L2 && inserted.first->second == Kind::SNAPSHOT_L2) continue;
    return false;
  }
  return true;
}

void MetadataMap::remove(uint64_t first, uint64_t count) {
  for (uint64_t i = 0; i < count; i++)
    clusters.erase(first + i);
}

}  // namespace troupe::blk::qcow2
