#pragma once

#include <kj/common.h>

#include <cstdint>

// What code of a jailed process an input reaches (--config=cover). The process counts in a piece of
// its guest's memory that no guest uses, so it needs no fd, no system call and no rule beyond those
// it ships with; who drives it reads the counts there. In every other build this is nothing.
namespace troupe::fuzz::coverage {

constexpr uint64_t GUEST_ADDRESS = 1ull << 45;
constexpr size_t BYTES = 64 << 10;

#ifdef TROUPE_COVER
constexpr bool IS_BUILT = true;
// Guest memory was mapped: counts go there from now on, if it is the piece.
void mapped(uint64_t guestAddress, uint64_t size, kj::byte* host);
// It is about to go.
void unmapping(kj::byte* host);
#else
constexpr bool IS_BUILT = false;
inline void mapped(uint64_t, uint64_t, kj::byte*) {}
inline void unmapping(kj::byte*) {}
#endif

}  // namespace troupe::fuzz::coverage
