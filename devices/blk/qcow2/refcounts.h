#pragma once

#include <kj/common.h>
#include <kj/vector.h>

#include <cstdint>
#include <unordered_map>

#include "devices/blk/qcow2/aligned_bytes.h"
#include "devices/blk/qcow2/header.h"
#include "devices/blk/qcow2/image_file.h"
#include "devices/blk/qcow2/metadata_map.h"

namespace troupe::blk::qcow2 {

// How often each cluster of the file is used, and which one to take next.
//
// Counts live in blocks, of which some are in memory, and change there until writeBack(). A new
// table of the image's is always appended: a cluster that ever held the guest's data while this
// object lives is given to nothing but the guest's data again, so no mapping somebody still holds
// can point into a table. Not thread-safe. Results are 0 or -errno; -EIO is also a file that
// contradicts itself.
class Refcounts {
 public:
  // Reads the table and enters it and its blocks into `map`. Throws TRP-blk-023, 025, 026.
  Refcounts(ImageFile& file, const Header& header, MetadataMap& map);

  int get(uint64_t cluster, uint64_t& count);
  // -EIO if there is no block for it, -ERANGE if the width of the counts does not allow it.
  int set(uint64_t cluster, uint64_t count);
  int decrement(uint64_t cluster, uint64_t& left);
  // Makes a block for `cluster` if it has none, appended.
  int ensureBlock(uint64_t cluster);

  // Takes `wanted` clusters in a row, or fewer, for data: reused ones or appended ones (`fresh`),
  // where the file never was.
  struct Taken {
    uint64_t first;
    uint64_t count;
    bool fresh;
  };
  int takeForData(uint64_t wanted, Taken& taken);
  // Takes exactly `count` in a row behind everything else.
  int append(uint64_t count, uint64_t& first);
  // Undoes taking clusters that nothing refers to.
  void giveBack(uint64_t first, uint64_t count);
  // Nothing was ever written from `cluster` on, or not any more, and all of it was given back: what
  // is appended next goes there again.
  void endAt(uint64_t cluster) { nextNew = cluster; }
  // A cluster before this one was freed: look there again.
  void reconsider(uint64_t cluster) { cursor = kj::min(cursor, cluster); }

  // visit(first, count) for the table and its blocks.
  template <typename Visit>
  void forEachOwnCluster(Visit&& visit) const {
    visit(geometry.clusterOf(tableOffset), tableClustersOnDisk);
    for (uint64_t offset : table) {
      if (offset != 0) visit(geometry.clusterOf(offset), uint64_t(1));
    }
  }

  // One behind the last cluster of the file or appended.
  uint64_t end() const { return nextNew; }

  bool isDirty() const;
  // Writes counts, then the table, and syncs where one must be on the disk before the other. After
  // it and a sync all is there; call written() then. `header`: where the table lies, changed when
  // it has grown out of its place; `freed` is that place.
  struct Place {
    uint64_t firstCluster;
    uint64_t count;
  };
  int writeBack(HeaderBlock& header, kj::Maybe<Place>& freed);
  void written();

 private:
  struct Block {
    uint64_t index;  // in the table
    AlignedBytes counts;
    uint64_t lastUse;
  };
  int load(uint64_t blockIndex, Block*& block);
  int evict(Block*& room);
  int createBlock(uint64_t blockIndex, uint64_t at);
  int writeTable(HeaderBlock& header, kj::Maybe<Place>& freed);
  uint64_t read(const Block& block, uint64_t slot) const;
  void write(Block& block, uint64_t slot, uint64_t count);
  int findFree(uint64_t wanted, uint64_t& first, uint64_t& count);
  bool isFree(uint64_t cluster, const Block& block) const;
  uint64_t tableClusters() const { return geometry.clustersFor(table.size() * 8); }

  ImageFile& file;
  MetadataMap& map;
  const Geometry geometry;
  kj::Vector<uint64_t> table;  // offsets of blocks, 0 where there is none
  uint64_t tableOffset;
  uint64_t tableClustersOnDisk;
  bool tableDirty = false;
  bool blocksUnsynced = false;
  const size_t mostBlocks;
  kj::Vector<kj::Own<Block>> blocks;
  std::unordered_map<uint64_t, Block*> byIndex;
  uint64_t uses = 0;
  uint64_t nextNew;
  uint64_t cursor = 0;
};

}  // namespace troupe::blk::qcow2
