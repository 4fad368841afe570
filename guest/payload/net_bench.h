#pragma once

#include "guest/payload/clock.h"
#include "guest/payload/command_line.h"
#include "guest/payload/virtio_device.h"

namespace payload {

// Frames sent, frames received, or questions the host answers, measured with the time-stamp
// counter: prints one line per round, which README.md explains.
void benchNet(const DriverContext& context, const PciFunction& function,
              const BenchOptions& options, TscRate rate);

}  // namespace payload
