#pragma once

#include <kj/array.h>
#include <kj/function.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe::hostile {

// What a hostile client of `troupe serve` does, in its own process. Each prints a line for each
// thing it tried: "answered", "hung up" or "stuck" (nobody reads any more), and what it was.
struct Case {
  kj::StringPtr name;
  // `bundle`: of a guest that waits. `number`: how often.
  void (*run)(kj::StringPtr socket, kj::StringPtr bundle, uint32_t number);
};

kj::ArrayPtr<const Case> allCases();

}  // namespace troupe::hostile
