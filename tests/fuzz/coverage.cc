#include "tests/fuzz/coverage.h"

#ifdef TROUPE_COVER

extern "C" {
extern const char __executable_start;  // the linker's
void __sanitizer_cov_trace_pc();
}

namespace troupe::fuzz::coverage {
namespace {

kj::byte nowhere[BYTES];
kj::byte* counts = nowhere;

}  // namespace

void mapped(uint64_t guestAddress, uint64_t size, kj::byte* host) {
  if (guestAddress == GUEST_ADDRESS && size == BYTES) counts = host;
}

void unmapping(kj::byte* host) {
  if (counts == host) counts = nowhere;
}

}  // namespace troupe::fuzz::coverage

// Called at every branch of what is instrumented. An edge is a place and the one before it; places
// are the same in every process, wherever it lies.
void __sanitizer_cov_trace_pc() {
  static thread_local uintptr_t before;
  auto here = reinterpret_cast<uintptr_t>(__builtin_return_address(0)) -
              reinterpret_cast<uintptr_t>(&__executable_start);
  here = here * 0x9e3779b97f4a7c15 >> 40;
  kj::byte& count = troupe::fuzz::coverage::counts[(here ^ before) % troupe::fuzz::coverage::BYTES];
  if (count < 255) count++;
  before = here >> 1;
}

#endif
