#pragma once

#include <kj/common.h>
#include <kj/io.h>

#include <cstdint>

namespace troupe::sandbox {

// Memory that actors share: a memfd that keeps its size and its seals for good, so that no access
// to a mapping of it ever faults, and that nobody can execute where the kernel (6.3) can see to it.
struct SharedMemory {
  kj::AutoCloseFd writable;
  // The same memory, opened for reading alone. Whoever holds only this can write it in no way: the
  // kernel makes no shared mapping of it writable, neither at mmap() nor later.
  kj::AutoCloseFd readOnly;
};

// `bytes` of zeroes, none of them touched yet. Throws TRP-host-102 when the kernel refuses. Needs
// /proc, which actors do not have: it is for those who start them.
SharedMemory makeSharedMemory(const char* name, uint64_t bytes);

// The same in two steps, for actors that can map nothing any more when its size is known: it is
// handed to them without a byte, and a page they mapped of it is there from the second step on,
// which comes once.
SharedMemory makeUnsizedMemory(const char* name);
void fixSize(const SharedMemory& memory, uint64_t bytes);

}  // namespace troupe::sandbox
