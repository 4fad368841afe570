#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/virtio/rate_limit.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::rng {

// The most random bytes one request gets: what a guest can make us draw with one descriptor is
// bounded, and the used length tells it what it got (§5.4.6: the driver takes what is there).
constexpr uint32_t MAX_BYTES_PER_REQUEST = 64 << 10;

// Where random bytes come from.
class RandomSource {
 public:
  // Fills the front of `bytes`, which may be guest memory, and says how far: -1 when there are no
  // random bytes.
  virtual ssize_t fill(kj::ArrayPtr<kj::byte> bytes) = 0;
};

// The requests of one ring (§5.4.6). Knows no fd and no event loop.
class RngQueue {
 public:
  // All outlive it.
  RngQueue(virtio::Virtqueue& ring, RandomSource& source, virtio::RateLimit& limit)
      : ring(ring), source(source), limit(limit) {}

  // One batch, at `now` of a clock in nanoseconds: at most as many requests as the ring holds, and
  // none beyond the limit. True when the driver wants an interrupt for it.
  bool serve(uint64_t now);

 private:
  uint32_t fill(virtio::Chain& chain);
  ssize_t draw(uint16_t head, kj::ArrayPtr<kj::byte> bytes);

  virtio::Virtqueue& ring;
  RandomSource& source;
  virtio::RateLimit& limit;
};

}  // namespace troupe::rng
