#pragma once

#include <cstdint>

namespace troupe::virtio::testing {

// Of devices/dying_devices a process dies of each request that has so many bytes to read, or so
// many to write.
constexpr uint64_t DEADLY_BYTES = 1313;

}  // namespace troupe::virtio::testing
