#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe {

// The decimal number in `text`; none when it is anything else or exceeds `limit`.
kj::Maybe<uint64_t> parseNumber(kj::StringPtr text, uint64_t limit);

// Bytes of "512M": a number with K, M, G or T (powers of 1024), or bytes without. None if malformed
// or beyond 2^63.
kj::Maybe<uint64_t> parseSize(kj::StringPtr text);

// A size for people: "512M", "1.5G", "1000 bytes".
kj::String sizeText(uint64_t bytes);

}  // namespace troupe
