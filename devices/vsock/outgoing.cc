#include "devices/vsock/outgoing.h"

#include <kj/debug.h>

namespace troupe::vsock {

void Outgoing::append(virtio::Chain& chain, uint32_t count) {
  KJ_REQUIRE(count <= room(), "more than the guest had credit for", count, room());
  if (bytes.size() == 0 && capacity > 0) bytes = kj::heapArray<kj::byte>(capacity);
  while (count > 0) {
    size_t end = (begin + used) % capacity;
    size_t part = kj::min(size_t(count), capacity - end);
    KJ_ASSERT(chain.readBytes(kj::arrayPtr(bytes.begin() + end, part)));
    used += part;
    count -= part;
  }
}

size_t Outgoing::oldest(kj::ArrayPtr<iovec> pieces) {
  if (used == 0) return 0;
  size_t first = kj::min(used, capacity - begin);
  pieces[0] = iovec{bytes.begin() + begin, first};
  if (first == used) return 1;
  pieces[1] = iovec{bytes.begin(), used - first};
  return 2;
}

void Outgoing::took(size_t count) {
  KJ_REQUIRE(count <= used);
  used -= count;
  begin = used == 0 ? 0 : (begin + count) % capacity;
}

}  // namespace troupe::vsock
