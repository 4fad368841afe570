#pragma once

#include <kj/common.h>
#include <kj/function.h>

#include <cstdint>

#include "devices/blk/qcow2/header.h"
#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk::qcow2 {

// The tables of one internal snapshot. `end`: of its entry in the snapshot table.
struct SnapshotTables {
  uint64_t l1Offset;
  uint32_t l1Entries;
  uint64_t end;
};

// Reads the snapshot table. Throws TRP-blk-023 for one that cannot be, TRP-blk-026.
void forEachSnapshot(ImageFile& file, const Header& header,
                     kj::FunctionParam<void(const SnapshotTables&)> visit);

}  // namespace troupe::blk::qcow2
