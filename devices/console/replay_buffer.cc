#include "devices/console/replay_buffer.h"

#include <kj/debug.h>

#include <cstring>

#include "devices/console/told_place.h"

namespace troupe::console {

ReplayBuffer::ReplayBuffer(size_t capacity)
    : own(kj::heapArray<kj::byte>(capacity)), ring(own), endPosition(endHere) {
  KJ_REQUIRE(capacity > 0);
}

ReplayBuffer::ReplayBuffer(kj::ArrayPtr<kj::byte> memory, uint64_t& end, size_t torn)
    : ring(memory), endPosition(end), torn(torn) {
  KJ_REQUIRE(memory.size() > torn);
  takeOver();
}

void ReplayBuffer::takeOver() {
  if (endPosition > LONGEST_STREAM) endPosition = 0;
  kept = kj::min(endPosition, ring.size() - torn);
}

void ReplayBuffer::append(kj::ArrayPtr<const kj::byte> bytes) {
  uint64_t end = endPosition;
  kept = kj::min<uint64_t>(kept + bytes.size(), ring.size());
  if (bytes.size() > ring.size()) {
    // Only the last of them survive.
    end += bytes.size() - ring.size();
    bytes = bytes.slice(bytes.size() - ring.size(), bytes.size());
  }
  size_t at = end % ring.size();
  size_t first = kj::min(bytes.size(), ring.size() - at);
  if (first > 0) memcpy(ring.begin() + at, bytes.begin(), first);
  if (first < bytes.size()) memcpy(ring.begin(), bytes.begin() + first, bytes.size() - first);
  // Behind the bytes: whoever takes this process's place believes that they are there.
  __atomic_store_n(&endPosition, end + bytes.size(), __ATOMIC_RELEASE);
}

kj::ArrayPtr<const kj::byte> ReplayBuffer::from(uint64_t position) const {
  KJ_REQUIRE(position >= begin() && position <= end(), position, begin(), end());
  size_t at = position % ring.size();
  size_t size = kj::min<uint64_t>(end() - position, ring.size() - at);
  return ring.slice(at, at + size);
}

}  // namespace troupe::console
