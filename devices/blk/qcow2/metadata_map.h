#pragma once

#include <kj/common.h>

#include <cstdint>
#include <unordered_map>

#include "devices/blk/qcow2/format.h"

namespace troupe::blk::qcow2 {

// Which clusters of the file hold the image's own tables, so that no entry of a table, whoever
// wrote it, makes us take one of them for the guest's data.
class MetadataMap {
 public:
  enum class Kind : uint8_t {
    HEADER,
    L1,
    REFCOUNT_TABLE,
    REFCOUNT_BLOCK,
    SNAPSHOTS,    // their table and L1 tables
    ACTIVE_L2,    // of the guest's disk alone, as far as is known
    SNAPSHOT_L2,  // of a snapshot, and perhaps also of the guest's disk
  };

  // Throws TRP-blk-023 if one of them is taken by another kind, TRP-blk-025 if there are too many.
  void add(Kind kind, uint64_t firstCluster, uint64_t count);
  // The same without a throw: false.
  bool tryAdd(Kind kind, uint64_t firstCluster, uint64_t count);
  void remove(uint64_t firstCluster, uint64_t count);

  bool contains(uint64_t cluster) const { return clusters.count(cluster) != 0; }
  kj::Maybe<Kind> find(uint64_t cluster) const {
    auto found = clusters.find(cluster);
    if (found == clusters.end()) return nullptr;
    return found->second;
  }

 private:
  // 48 bytes each: 100 MiB. An image of 2 TiB with the usual clusters has 5000.
  static constexpr size_t MOST_CLUSTERS = 2 << 20;
  std::unordered_map<uint64_t, Kind> clusters;
};

}  // namespace troupe::blk::qcow2
