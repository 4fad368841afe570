#include "devices/virtio/piece_arena.h"

#include <cstdlib>
#include <new>

namespace troupe::virtio {

PieceArena::PieceArena(uint32_t heads)
    : pieceLimit(kj::min(heads, MAX_PIECES)),
      shortTable(kj::heapArray<iovec>(heads * size_t(SHORT + 1))) {
  if (pieceLimit <= SHORT) return;  // every chain is short
  size_t longBytes = heads * size_t(pieceLimit + 1) * sizeof(iovec);
  // From the heap, not a mapping of its own: drivers come and go while the process serves, when its
  // filter may know no mmap.
  longTable = static_cast<iovec*>(malloc(longBytes));
  if (longTable == nullptr) throw std::bad_alloc();
}

PieceArena::~PieceArena() {
  free(longTable);
}

}  // namespace troupe::virtio
