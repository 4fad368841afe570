#pragma once

#include "vmm/config/disk_plan.h"

namespace troupe {

// Makes room for a disk of a running VM to have `bytes` bytes; 0: as many as its block device has
// now. A raw file is grown here, an image by its actor. Returns what the actor is to be told.
// Throws a user error for what cannot be; then nothing has changed.
uint64_t growDiskFile(const DiskPlan& disk, int fd, uint64_t bytes);

}  // namespace troupe
