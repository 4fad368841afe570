#pragma once

#include <kj/common.h>
#include <sys/uio.h>

namespace troupe::virtio {

// What will be done with memory that the processor is to fetch.
enum class Purpose { TO_READ, TO_WRITE };

// Has the processor fetch the cache line of `pointer`, while other work is done: for memory that
// the guest's processor had last. Never fails, and reads nothing.
inline void fetch(const kj::byte* pointer, Purpose purpose) {
  if (purpose == Purpose::TO_WRITE) {
    // The compiler's own is one for reading, unless it builds for a processor that surely has this.
    asm volatile("prefetchw %0" : : "m"(*pointer));
  } else {
    __builtin_prefetch(pointer);
  }
}

// The same for the first bytes of a chain's pieces: a short frame, or the headers of a long one.
inline void fetch(kj::ArrayPtr<const iovec> pieces, Purpose purpose) {
  constexpr size_t LINE = 64, MOST = 3 * LINE;
  if (pieces.size() == 0) return;
  auto begin = static_cast<const kj::byte*>(pieces[0].iov_base);
  for (size_t at = 0; at < kj::min(MOST, pieces[0].iov_len); at += LINE)
    fetch(begin + at, purpose);
}

}  // namespace troupe::virtio
