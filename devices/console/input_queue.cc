#include "devices/console/input_queue.h"

#include <kj/debug.h>

#include <cstring>

namespace troupe::console {

InputQueue::InputQueue() : bytes(kj::heapArray<kj::byte>(CAPACITY)) {}

size_t InputQueue::append(kj::ArrayPtr<const kj::byte> more) {
  size_t count = kj::min(more.size(), room());
  if (count == 0) return 0;
  if (CAPACITY - last < count) {
    memmove(bytes.begin(), bytes.begin() + first, last - first);
    last -= first;
    first = 0;
  }
  memcpy(bytes.begin() + last, more.begin(), count);
  last += count;
  appended.raise();
  return count;
}

kj::Promise<void> InputQueue::whenRoom() {
  if (room() > 0) return kj::READY_NOW;
  return roomMade.wait();
}

kj::ArrayPtr<const kj::byte> InputQueue::waiting() const {
  return bytes.slice(first, last);
}

void InputQueue::took(size_t count) {
  if (count == 0) return;
  KJ_REQUIRE(count <= last - first);
  first += count;
  roomMade.raise();
}

kj::Promise<void> InputQueue::whenInput() {
  if (first < last) return kj::READY_NOW;
  return appended.wait();
}

}  // namespace troupe::console
