#pragma once

#include "guest/payload/command_line.h"
#include "guest/payload/virtio_device.h"

namespace payload {

// Writes numbered blocks to one disk and flushes, again and again, and says on the serial port up
// to which number they are flushed, for a host that ends the machine meanwhile and then looks at
// the disk. README.md says what is where. Needs `mayScratch` or a disk that is marked as scratch.
void writeDurably(const DriverContext& context, const PciFunction& function,
                  const BenchOptions& options, bool mayScratch);

}  // namespace payload
