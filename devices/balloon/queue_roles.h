#pragma once

#include <kj/common.h>

#include <cstdint>

namespace troupe::balloon {

// What the queues are for, in the order of §5.5.2.
enum class Role : uint8_t { INFLATE, DEFLATE, STATISTICS, FREE_PAGE_HINT, REPORTING };
constexpr uint16_t ROLE_COUNT = 5;

// What queue `index` is for, when the driver negotiated `features` and enabled the queues whose
// bits `enabled` has; none for a queue nobody asked for.
//
// §5.5.2 gives each role its number. Linux before 6.11 leaves out the roles it did not negotiate
// and counts on without them; the two differ only where a feature in the middle is missing, and
// there the enabled queues tell which of the two a driver is.
kj::Maybe<Role> roleOf(uint16_t index, uint64_t features, uint32_t enabled);

}  // namespace troupe::balloon
