#pragma once

#include <kj/common.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/blk/qcow2/aligned_bytes.h"
#include "devices/blk/qcow2/header.h"
#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk::qcow2 {

// The refcounts of an image as they stand there, right or not, for whoever checks them. (Refcounts
// is for those that are relied on.) What lies where no block can be counts 0. Throws TRP-blk-020
// and 026, TRP-disk-102.
class CheckedCounts {
 public:
  CheckedCounts(ImageFile& file, const Header& header);
  KJ_DISALLOW_COPY(CheckedCounts);

  uint64_t get(uint64_t cluster);
  // Sets a smaller count than there is; on the disk after writeBack().
  void lower(uint64_t cluster, uint64_t count);
  void writeBack();

  uint64_t tableBytes() const { return tableSize; }

  // visit(offset, sound) for every entry of the table. One is not sound that leads out of the file
  // or to no beginning of a cluster.
  template <typename Visit>
  void forEachBlock(Visit&& visit) const {
    for (const Entry& entry : table) {
      if (entry.offset != 0) visit(entry.offset, entry.sound);
    }
  }

 private:
  struct Entry {
    uint64_t offset;
    bool sound;
  };
  struct Slot {
    uint64_t index;  // in the table
    AlignedBytes counts;
  };
  // Where the count of `cluster` is; none if there is no block for it.
  kj::Maybe<Slot&> load(uint64_t cluster);
  void write(Slot& slot);

  ImageFile& file;
  const Geometry geometry;
  const uint64_t tableSize;
  kj::Vector<Entry> table;
  const size_t mostSlots;
  kj::Vector<kj::Own<Slot>> slots;  // a block has its place by its index
};

}  // namespace troupe::blk::qcow2
