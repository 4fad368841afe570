#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

namespace troupe::console {

// The last `capacity` bytes of a stream, each known by its position: the number of bytes that came
// before it. Memory is taken once and touched only as far as the stream has come.
class ReplayBuffer {
 public:
  explicit ReplayBuffer(size_t capacity);
  KJ_DISALLOW_COPY(ReplayBuffer);

  void append(kj::ArrayPtr<const kj::byte> bytes);

  // Positions of the oldest byte kept and of the next one to come.
  uint64_t begin() const { return endPosition - kept; }
  uint64_t end() const { return endPosition; }
  size_t capacity() const { return ring.size(); }

  // What is kept from `position` on, as far as it lies in one piece: empty only at end(). Valid
  // until the next append(). `position` must be in [begin(), end()].
  kj::ArrayPtr<const kj::byte> from(uint64_t position) const;

 private:
  kj::Array<kj::byte> ring;  // the byte at position p is ring[p % capacity]
  uint64_t endPosition = 0;
  uint64_t kept = 0;
};

}  // namespace troupe::console
