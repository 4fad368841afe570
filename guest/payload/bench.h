#pragma once

#include "guest/payload/clock.h"
#include "guest/payload/command_line.h"
#include "guest/payload/virtio_device.h"

namespace payload {

// Random reads or writes on one disk, measured with the time-stamp counter: prints one line per
// round, which README.md explains. A write needs `mayScratch` or a disk that is marked as scratch.
void benchDisk(const DriverContext& context, const PciFunction& function,
               const BenchOptions& options, bool mayScratch, TscRate rate);

}  // namespace payload
