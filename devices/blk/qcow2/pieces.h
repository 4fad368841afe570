#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/guest_memory.h"

namespace troupe::blk::qcow2 {

// Work on the pieces of a transfer, which may be guest memory: bytes move by system calls or word
// by word.

inline uint64_t sizeOf(kj::ArrayPtr<const iovec> pieces) {
  uint64_t size = 0;
  for (const iovec& piece : pieces)
    size += piece.iov_len;
  return size;
}

// Copies the first `bytes` bytes' pieces behind the first `skip` into `room`, which is large enough
// for all of `pieces`. Returns how many there are.
inline size_t clip(kj::ArrayPtr<const iovec> pieces, uint64_t skip, uint64_t bytes, iovec* room) {
  size_t count = 0;
  for (const iovec& piece : pieces) {
    if (bytes == 0) break;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    size_t part = kj::min(piece.iov_len - skip, bytes);
    room[count++] = iovec{static_cast<kj::byte*>(piece.iov_base) + skip, part};
    skip = 0;
    bytes -= part;
  }
  return count;
}

// Calls step(pointer, count) for each run of the `bytes` bytes of `pieces` behind the first `skip`.
template <typename Step>
void forRuns(kj::ArrayPtr<const iovec> pieces, uint64_t skip, uint64_t bytes, Step&& step) {
  for (const iovec& piece : pieces) {
    if (bytes == 0) return;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    size_t part = kj::min(piece.iov_len - skip, bytes);
    step(static_cast<kj::byte*>(piece.iov_base) + skip, part);
    skip = 0;
    bytes -= part;
  }
}

inline void storeBytes(kj::ArrayPtr<const iovec> pieces, kj::ArrayPtr<const kj::byte> from) {
  const kj::byte* at = from.begin();
  forRuns(pieces, 0, from.size(), [&](kj::byte* to, size_t count) {
    virtio::copyIn(to, kj::arrayPtr(at, count));
    at += count;
  });
}

inline void storeZeroes(kj::ArrayPtr<const iovec> pieces, uint64_t skip, uint64_t bytes) {
  static const kj::byte ZEROES[4096] = {};
  forRuns(pieces, skip, bytes, [](kj::byte* to, size_t count) {
    while (count > 0) {
      size_t part = kj::min(count, sizeof(ZEROES));
      virtio::copyIn(to, kj::arrayPtr(ZEROES, part));
      to += part;
      count -= part;
    }
  });
}

}  // namespace troupe::blk::qcow2
