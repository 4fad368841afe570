#include "devices/vsock/receive_buffers.h"

#include <kj/debug.h>

namespace troupe::vsock {

namespace {

kj::ArrayPtr<const kj::byte> bytesOf(const PacketHeader& header) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(&header), sizeof(header));
}

}  // namespace

bool ReceiveBuffers::take() {
  if (count == MOST_TAKEN || foundEmpty) return false;
  for (;;) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      // Nor is one that processes keep dying over any good.
      if (chain->isDeadly() || chain->writableBytes() < sizeof(PacketHeader)) {
        if (chain->isDeadly()) ring.countError();
        ring.push(kj::mv(*chain), 0);
        continue;
      }
      taken[(first + count++) % MOST_TAKEN] = kj::mv(*chain);
      return true;
    }
    foundEmpty = true;
    return false;
  }
}

void ReceiveBuffers::giveBackFirst(uint32_t written) {
  auto& chain = KJ_ASSERT_NONNULL(taken[first]);
  ring.push(kj::mv(chain), written);
  taken[first] = nullptr;
  first = (first + 1) % MOST_TAKEN;
  --count;
}

void ReceiveBuffers::send(const PacketHeader& header) {
  auto& chain = KJ_ASSERT_NONNULL(taken[first]);
  KJ_ASSERT(chain.writeBytes(bytesOf(header)));
  giveBackFirst(sizeof(header));
}

uint32_t ReceiveBuffers::addPieces(const virtio::Chain& chain, uint32_t most) {
  size_t skip = sizeof(PacketHeader);
  uint32_t bytes = 0;
  for (const iovec& piece : chain.writable()) {
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    if (bytes == most || pieceCount == MOST_PIECES) break;
    size_t size = kj::min(piece.iov_len - skip, size_t(most - bytes));
    pieces[pieceCount++] = iovec{static_cast<kj::byte*>(piece.iov_base) + skip, size};
    bytes += size;
    skip = 0;
  }
  return bytes;
}

kj::ArrayPtr<const iovec> ReceiveBuffers::room(uint32_t most) {
  pieceCount = 0;
  uint32_t bytes = 0;
  size_t used = 0;
  while (bytes < most && pieceCount < MOST_PIECES && (used < count || take())) {
    auto& chain = KJ_ASSERT_NONNULL(taken[(first + used) % MOST_TAKEN]);
    uint32_t part = addPieces(chain, most - bytes);
    if (part == 0) {
      // Only the first in line can be a buffer that has no room at all: it goes; behind it, what
      // was found so far has to do.
      if (used > 0) break;
      giveBackFirst(0);
      continue;
    }
    payload[used++] = part;
    bytes += part;
  }
  return kj::arrayPtr(pieces, pieceCount);
}

void ReceiveBuffers::sendFilled(PacketHeader header, uint32_t bytes) {
  for (size_t i = 0; bytes > 0; i++) {
    header.length = kj::min(bytes, payload[i]);
    bytes -= header.length;
    KJ_ASSERT(KJ_ASSERT_NONNULL(taken[first]).writeBytes(bytesOf(header)));
    giveBackFirst(sizeof(header) + header.length);
  }
}

}  // namespace troupe::vsock
