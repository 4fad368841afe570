#include "devices/console/replay_buffer.h"

#include <kj/debug.h>

#include <cstring>

namespace troupe::console {

ReplayBuffer::ReplayBuffer(size_t capacity) : ring(kj::heapArray<kj::byte>(capacity)) {
  KJ_REQUIRE(capacity > 0);
}

void ReplayBuffer::append(kj::ArrayPtr<const kj::byte> bytes) {
  kept = kj::min<uint64_t>(kept + bytes.size(), ring.size());
  if (bytes.size() > ring.size()) {
    // Only the last of them survive.
    endPosition += bytes.size() - ring.size();
    bytes = bytes.slice(bytes.size() - ring.size(), bytes.size());
  }
  size_t at = endPosition % ring.size();
  size_t first = kj::min(bytes.size(), ring.size() - at);
  if (first > 0) memcpy(ring.begin() + at, bytes.begin(), first);
  if (first < bytes.size()) memcpy(ring.begin(), bytes.begin() + first, bytes.size() - first);
  endPosition += bytes.size();
}

kj::ArrayPtr<const kj::byte> ReplayBuffer::from(uint64_t position) const {
  KJ_REQUIRE(position >= begin() && position <= end(), position, begin(), end());
  size_t at = position % ring.size();
  size_t size = kj::min<uint64_t>(end() - position, ring.size() - at);
  return ring.slice(at, at + size);
}

}  // namespace troupe::console
