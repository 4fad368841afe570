#include "devices/virtio/piece_arena.h"

#include <kj/debug.h>
#include <sys/mman.h>

#include <cerrno>

namespace troupe::virtio {

PieceArena::PieceArena(uint32_t heads)
    : pieceLimit(kj::min(heads, MAX_PIECES)),
      shortTable(kj::heapArray<iovec>(heads * size_t(SHORT + 1))) {
  if (pieceLimit <= SHORT) return;  // every chain is short
  longBytes = heads * size_t(pieceLimit + 1) * sizeof(iovec);
  void* mapping = mmap(nullptr, longBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(room for long chains)", errno, longBytes);
  longTable = static_cast<iovec*>(mapping);
}

PieceArena::~PieceArena() {
  if (longTable != nullptr) munmap(longTable, longBytes);
}

}  // namespace troupe::virtio
