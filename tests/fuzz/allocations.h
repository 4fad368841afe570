#pragma once

#include <cstdint>

namespace troupe::fuzz {

// Bytes that were ever taken from the heap; stays 0 in a build without the address sanitizer.
uint64_t allocatedBytes();

// What this thread takes while one of these lives does not count.
class NotCounted {
 public:
  NotCounted();
  ~NotCounted();
};

}  // namespace troupe::fuzz
