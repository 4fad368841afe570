#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk::qcow2 {

// An image that is to be made: version 3, with counts of 16 bits.
struct NewImage {
  uint64_t bytes;  // of the guest's disk
  uint32_t clusterBits;
  bool lazyRefcounts;
  kj::StringPtr backingName;  // as its header is to have it; "" without a backing file
  kj::StringPtr backingFormat;
};

// Writes an image in which nothing is allocated into `file`, which is empty, and takes it to the
// disk. Throws TRP-disk-101 for one that cannot be, TRP-disk-102 when it cannot be written.
void makeImage(ImageFile& file, const NewImage& image);

}  // namespace troupe::blk::qcow2
