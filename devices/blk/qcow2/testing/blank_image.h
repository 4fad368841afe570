#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe::blk::qcow2::testing {

// An empty image, as a test needs it.
struct BlankImage {
  uint32_t version = 3;
  uint32_t clusterBits = 16;
  uint32_t refcountOrder = 4;
  uint64_t size = 1 << 20;
  bool lazyRefcounts = false;
  kj::StringPtr backingName = nullptr;
  kj::StringPtr backingFormat = nullptr;
};

// Clusters: 0 the header, 1 the refcount table, 2 its block, from 3 on the L1 table.
kj::Array<kj::byte> makeBlank(const BlankImage& image);

}  // namespace troupe::blk::qcow2::testing
