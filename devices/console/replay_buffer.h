#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

namespace troupe::console {

// The last bytes of a stream, as many as there is memory for, each known by its position: the
// number of bytes that came before it. Memory is touched only as far as the stream has come.
class ReplayBuffer {
 public:
  explicit ReplayBuffer(size_t capacity);

  // In memory that outlives the process: zeroes, or as a ReplayBuffer left it that may have died in
  // the midst of an append() of at most `torn` bytes. `end` counts all bytes of the stream. Both
  // outlive this.
  ReplayBuffer(kj::ArrayPtr<kj::byte> memory, uint64_t& end, size_t torn);
  KJ_DISALLOW_COPY(ReplayBuffer);

  // The same for what was left there since.
  void takeOver();

  void append(kj::ArrayPtr<const kj::byte> bytes);

  // Positions of the oldest byte kept and of the next one to come.
  uint64_t begin() const { return endPosition - kept; }
  uint64_t end() const { return endPosition; }
  size_t capacity() const { return ring.size(); }

  // What is kept from `position` on, as far as it lies in one piece: empty only at end(). Valid
  // until the next append(). `position` must be in [begin(), end()].
  kj::ArrayPtr<const kj::byte> from(uint64_t position) const;

 private:
  uint64_t endHere = 0;
  kj::Array<kj::byte> own;
  kj::ArrayPtr<kj::byte> ring;  // the byte at position p is ring[p % capacity]
  uint64_t& endPosition;
  const size_t torn = 0;
  uint64_t kept = 0;
};

}  // namespace troupe::console
