#pragma once

#include <kj/common.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace troupe::blk {

// Zeroes to be written where a file system cannot make them: iovecs that all point into one page
// range that nobody ever writes. Immutable after construction, so that the kernel may read them at
// any time.
class ZeroPieces {
 public:
  ZeroPieces();
  KJ_DISALLOW_COPY(ZeroPieces);

  // Zeroes for the first part of `bytes`, a multiple of 512 and not 0: all of them, but for a rest
  // that is no multiple of the largest power of two in it.
  kj::ArrayPtr<const iovec> upTo(uint64_t bytes) const;

 private:
  static constexpr size_t LARGE_BYTES = 256 << 10;
  static constexpr size_t LARGE_COUNT = 128;
  static constexpr size_t SMALL_COUNT = 9;  // 512 bytes to 128 KiB

  iovec large[LARGE_COUNT];
  iovec small[SMALL_COUNT];
};

}  // namespace troupe::blk
