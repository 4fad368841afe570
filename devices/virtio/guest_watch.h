#pragma once

#include <kj/common.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

// Where a fuzz build (--config=fuzz) looks over a device's shoulder: what of guest memory it
// touches, and which chains it has. In every other build these are empty and leave no code behind
// (guest_word_codegen_test). tests/fuzz/watch.h is what stands behind them.
namespace troupe::virtio::watch {

#ifdef TROUPE_FUZZ

// Before `size` bytes at `guest` are read (written). May change what is there, as a guest could.
void read(const kj::byte* guest, size_t size);
void write(kj::byte* guest, size_t size);

// One look for the next chain of `ring`; what it reads in between belongs to that chain. `table`:
// it goes on in this indirect table.
void popBegins(const void* ring);
void table(const kj::byte* begin, size_t size);
void popEnds(bool found);

// A chain left `ring`, and came back with `written` bytes stored.
void taken(const void* ring, uint16_t head, kj::ArrayPtr<const iovec> readable,
           kj::ArrayPtr<const iovec> writable);
void returned(const void* ring, uint16_t head, uint32_t written);

#else

inline void read(const kj::byte*, size_t) {}
inline void write(kj::byte*, size_t) {}
inline void popBegins(const void*) {}
inline void table(const kj::byte*, size_t) {}
inline void popEnds(bool) {}
inline void taken(const void*, uint16_t, kj::ArrayPtr<const iovec>, kj::ArrayPtr<const iovec>) {}
inline void returned(const void*, uint16_t, uint32_t) {}

#endif

}  // namespace troupe::virtio::watch
