#pragma once

#include <stdint.h>

#include "guest/payload/clock.h"

// Arithmetic of what benchmarks measure.
namespace payload {

// Sorts in place, without recursion or more memory.
void heapSort(uint32_t* values, unsigned count);

// cycles * 1e9 / hz without overflow for anything shorter than some minutes; 0 where hz is unknown.
uint64_t nanoseconds(uint64_t cycles, TscRate rate);

// count * hz / cycles; 0 where hz is unknown.
uint64_t perSecond(uint64_t count, uint64_t cycles, TscRate rate);

}  // namespace payload
