#pragma once

namespace troupe::blk {

// The process troupe-blk: a virtio block device on one disk.
int blkMain();

}  // namespace troupe::blk
