#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/virtqueue.h"

namespace troupe::vsock {

// What the guest has sent and its reader on the host has not taken: at most as many bytes as the
// guest was given credit for. Nothing is allocated before a reader falls behind.
class Outgoing {
 public:
  explicit Outgoing(uint32_t capacity = 0) : capacity(capacity) {}

  size_t size() const { return used; }
  size_t room() const { return capacity - used; }

  // Takes `count` readable bytes of `chain`, which has them and for which there is room().
  void append(virtio::Chain& chain, uint32_t count);

  // The oldest bytes, in up to two pieces; `pieces` has room for two. How many pieces.
  size_t oldest(kj::ArrayPtr<iovec> pieces);
  void took(size_t count);

 private:
  uint32_t capacity;
  kj::Array<kj::byte> bytes;  // empty, or of `capacity`
  size_t begin = 0;
  size_t used = 0;
};

}  // namespace troupe::vsock
