#pragma once

#include "guest/payload/clock.h"
#include "guest/payload/command_line.h"
#include "guest/payload/virtio_device.h"

namespace payload {

// Puts pages that exist into the balloon and measures how long that takes: prints one line per
// round, which README.md explains.
void benchBalloon(const DriverContext& context, const PciFunction& function,
                  const BenchOptions& options, TscRate rate);

}  // namespace payload
