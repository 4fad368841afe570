#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

namespace troupe::virtio {

// A chain is as long as one preadv() takes (IOV_MAX); devices offer queues of at most this size.
constexpr uint32_t MAX_PIECES = 1024;

// Room for the pieces of every chain of one virtqueue at once, so that no request allocates.
//
// Each head has a few pieces in a small table that stays in the cache. A longer chain of that head
// moves to the head's place in a big table, a block of which only pages that were ever used exist.
// Its full extent, reached only if every head once carried a longest chain, is
// size × (min(size, MAX_PIECES) + 1) × 16 bytes: 1 MiB for a queue of 256.
class PieceArena {
 public:
  explicit PieceArena(uint32_t heads);
  ~PieceArena();
  KJ_DISALLOW_COPY(PieceArena);

  // The most pieces of one chain. One more fits, for splitting a piece in two.
  uint32_t limit() const { return pieceLimit; }

  // Room for SHORT + 1 pieces, and for limit() + 1. Valid until `head` is asked for again.
  iovec* shortPieces(uint16_t head) { return shortTable.begin() + head * (SHORT + 1); }
  iovec* longPieces(uint16_t head) { return longTable + head * size_t(pieceLimit + 1); }

  static constexpr uint32_t SHORT = 7;  // with the spare one, two cache lines

 private:
  const uint32_t pieceLimit;
  kj::Array<iovec> shortTable;
  iovec* longTable = nullptr;
};

}  // namespace troupe::virtio
