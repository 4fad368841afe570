#pragma once

#include <kj/common.h>
#include <kj/function.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/blk/qcow2/header.h"
#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk::qcow2 {

// What may be wrong with an image.
enum class Flaw : uint8_t {
  COUNTED_TOO_LOW,  // an error: a cluster may be given away that is in use
  LEAKED,           // no error: space that nobody uses
  COPIED_FLAG,      // the flag says something else than the count
  OUTSIDE,          // an entry leads out of the file
  MISALIGNED,       // an entry leads to no cluster's beginning
  RESERVED_BITS,    // an entry has bits that none has
  REFCOUNT_BLOCK,   // an entry of the refcount table leads where no block can be
  SHARED_BLOCK,     // a refcount block is something else as well
  SNAPSHOT,         // the snapshot table, or an L1 table in it, cannot be
};

struct Finding {
  Flaw flaw;
  uint64_t cluster;  // of the file
  uint64_t counted;  // what its refcount says
  uint64_t used;     // how often it is used, where that is known
};

struct CheckResult {
  uint64_t errors = 0;
  uint64_t leaks = 0;  // that are left
  uint64_t repairedLeaks = 0;
  // Of the guest's disk; what lies in a backing file is not allocated.
  uint64_t totalClusters = 0;
  uint64_t allocatedClusters = 0;
  uint64_t compressedClusters = 0;
  uint64_t endOffset = 0;        // of the last cluster that is used or counted
  kj::Vector<Finding> findings;  // the first ones
};

constexpr size_t MOST_FINDINGS = 32;

enum class Repair { NOTHING, LEAKS };

// Counts what an image uses, its snapshots included, and compares that with its refcounts and
// COPIED flags, as `qemu-img check` does. Nothing is written but for Repair::LEAKS: then counts
// that are too high are lowered and the flags set accordingly, if the image has no error.
//
// `header` is parsed with READ_ONLY. Files are counted a window at a time, so memory is bounded by
// 150 MiB whatever the image; `progress` is told how far of how much it has come. Throws
// TRP-blk-020 for a header that leads nowhere, 021 for an image with bitmaps, 025 for one with more
// than 2^31 clusters, 026 when it cannot be read, TRP-disk-102 when it cannot be written.
CheckResult check(ImageFile& file, const Header& header, Repair repair,
                  kj::FunctionParam<void(uint64_t done, uint64_t total)> progress);

// The same with windows of `windowClusters`, for tests.
CheckResult checkInWindows(ImageFile& file, const Header& header, Repair repair,
                           uint64_t windowClusters,
                           kj::FunctionParam<void(uint64_t done, uint64_t total)> progress);

}  // namespace troupe::blk::qcow2
