#pragma once

namespace troupe::rng {

// The process troupe-rng: a virtio entropy device.
int rngMain();

}  // namespace troupe::rng
