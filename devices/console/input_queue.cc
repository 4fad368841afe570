#include "devices/console/input_queue.h"

#include <kj/debug.h>

#include <cstring>

namespace troupe::console {

InputQueue::InputQueue()
    : own(kj::heapArray<kj::byte>(CAPACITY)), kept(keptHere), ring(own), told(kept.told) {}

InputQueue::InputQueue(KeptInput& kept, kj::ArrayPtr<kj::byte> memory)
    : kept(kept), ring(memory), told(kept.told) {
  KJ_REQUIRE(memory.size() == CAPACITY);
  takeOver();
}

void InputQueue::takeOver() {
  if (kept.end > LONGEST_STREAM) kept.end = 0;
  // Until a driver goes on or begins, both places that may count are kept; where none can be, there
  // is nothing to give again.
  bool isKnown = false;
  first = 0;
  freed = kept.end;
  for (size_t which : {0, 1}) {
    KJ_IF_MAYBE (place, told.noted(which)) {
      if (!isPlace(*place)) continue;
      isKnown = true;
      first = kj::max(first, *place);
      freed = kj::min(freed, *place);
    }
  }
  if (!isKnown) first = kept.end;
}

size_t InputQueue::append(kj::ArrayPtr<const kj::byte> more) {
  size_t count = kj::min(more.size(), room());
  if (count == 0) return 0;
  size_t at = kept.end % CAPACITY;
  size_t part = kj::min(count, CAPACITY - at);
  memcpy(ring.begin() + at, more.begin(), part);
  memcpy(ring.begin(), more.begin() + part, count - part);
  __atomic_store_n(&kept.end, kept.end + count, __ATOMIC_RELEASE);
  appended.raise();
  return count;
}

kj::Promise<void> InputQueue::whenRoom() {
  if (room() > 0) return kj::READY_NOW;
  return roomMade.wait();
}

kj::ArrayPtr<const kj::byte> InputQueue::waiting() const {
  size_t at = first % CAPACITY;
  size_t size = kj::min<uint64_t>(kept.end - first, CAPACITY - at);
  return ring.slice(at, at + size);
}

kj::Promise<void> InputQueue::whenInput() {
  if (first < kept.end) return kj::READY_NOW;
  return appended.wait();
}

void InputQueue::give(size_t count) {
  KJ_REQUIRE(count <= kept.end - first);
  first += count;
}

void InputQueue::took(size_t count) {
  give(count);
  free();
}

void InputQueue::settle(uint16_t published, uint16_t pushed) {
  told.note(published, pushed, first);
  free();
}

void InputQueue::free() {
  if (freed == first) return;
  freed = first;
  roomMade.raise();
}

void InputQueue::begin() {
  told.begin(first);
  free();
}

void InputQueue::goOn(uint16_t published) {
  KJ_IF_MAYBE (place, told.at(published)) {
    if (isPlace(*place)) first = *place;
  }
  free();
  if (first < kept.end) appended.raise();
}

}  // namespace troupe::console
