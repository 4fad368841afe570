#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/virtqueue.h"
#include "devices/vsock/wire.h"

namespace troupe::vsock {

// The buffers the driver offers for packets to the guest. A few are taken ahead, so that one system
// call fills many: drivers offer 4 KiB each.
//
// Buffers too small for a header go back unused; so do those with no room behind it when there are
// bytes to carry.
class ReceiveBuffers {
 public:
  static constexpr size_t MOST_TAKEN = 32;

  explicit ReceiveBuffers(virtio::Virtqueue& ring) : ring(ring) {}

  // A ring that was found empty is not looked at again before the next turn.
  void beginTurn() { foundEmpty = false; }

  // Whether there is one for a packet.
  bool ready() { return count > 0 || take(); }

  // A packet without payload. ready() was true.
  void send(const PacketHeader& header);

  // Where up to `most` bytes of payload would go; empty when there is no buffer. For a system call
  // that comes before anything else here.
  kj::ArrayPtr<const iovec> room(uint32_t most);

  // The first `bytes` of room() were filled: makes packets of them with `header`, whose length is
  // set here.
  void sendFilled(PacketHeader header, uint32_t bytes);

 private:
  static constexpr size_t MOST_PIECES = 128;

  bool take();
  void giveBackFirst(uint32_t written);
  // Adds the payload's pieces of `chain`, and says how many bytes they are.
  uint32_t addPieces(const virtio::Chain& chain, uint32_t most);

  virtio::Virtqueue& ring;
  kj::Maybe<virtio::Chain> taken[MOST_TAKEN];  // `count` from `first` on, in a circle
  uint32_t payload[MOST_TAKEN];                // what of room() lies in each, from the first on
  size_t first = 0;
  size_t count = 0;
  bool foundEmpty = false;
  iovec pieces[MOST_PIECES];
  size_t pieceCount = 0;
};

}  // namespace troupe::vsock
