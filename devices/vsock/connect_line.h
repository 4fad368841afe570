#pragma once

#include <kj/common.h>

#include <cstdint>

namespace troupe::vsock {

// "CONNECT 4294967294\n" and some air.
constexpr size_t LONGEST_CONNECT_LINE = 32;

// The port that a client of the hybrid socket asks for in `line`, which has no newline any more:
// "CONNECT" in any case, one space, a decimal port. None for anything else.
kj::Maybe<uint32_t> parseConnectLine(kj::ArrayPtr<const char> line);

}  // namespace troupe::vsock
