#include "devices/blk/zero_pieces.h"

#include <kj/debug.h>

#include "devices/blk/blk_wire.h"

namespace troupe::blk {
namespace {

// Only ever read, so it takes no memory. Aligned for any O_DIRECT.
alignas(4096) kj::byte zeroes[256 << 10];

}  // namespace

ZeroPieces::ZeroPieces() {
  static_assert(sizeof(zeroes) == LARGE_BYTES, "a large piece is all of them");
  static_assert(LARGE_BYTES == virtio::BLK_SECTOR_BYTES << SMALL_COUNT, "small pieces lead up");
  for (iovec& piece : large)
    piece = iovec{zeroes, LARGE_BYTES};
  for (size_t i = 0; i < SMALL_COUNT; i++)
    small[i] = iovec{zeroes, size_t(virtio::BLK_SECTOR_BYTES) << i};
}

kj::ArrayPtr<const iovec> ZeroPieces::upTo(uint64_t bytes) const {
  KJ_REQUIRE(bytes >= virtio::BLK_SECTOR_BYTES && bytes % virtio::BLK_SECTOR_BYTES == 0, bytes);
  if (bytes >= LARGE_BYTES) {
    return kj::arrayPtr(large, kj::min(bytes / LARGE_BYTES, uint64_t(LARGE_COUNT)));
  }
  size_t i = SMALL_COUNT - 1;
  while (small[i].iov_len > bytes)
    --i;
  return kj::arrayPtr(small + i, 1);
}

}  // namespace troupe::blk
