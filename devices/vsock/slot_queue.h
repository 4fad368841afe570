#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

namespace troupe::vsock {

// Slots of a table in the order they asked for a turn, each at most once. Never allocates again.
class SlotQueue {
 public:
  explicit SlotQueue(uint16_t slots)
      : order(kj::heapArray<uint16_t>(slots)), waiting(kj::heapArray<bool>(slots)) {
    for (bool& each : waiting)
      each = false;
  }

  bool empty() const { return count == 0; }
  size_t size() const { return count; }

  // Does nothing when it waits already.
  void add(uint16_t slot) {
    if (waiting[slot]) return;
    waiting[slot] = true;
    order[(first + count++) % order.size()] = slot;
  }

  uint16_t front() const { return order[first]; }

  uint16_t take() {
    uint16_t slot = order[first];
    first = (first + 1) % order.size();
    --count;
    waiting[slot] = false;
    return slot;
  }

 private:
  kj::Array<uint16_t> order;
  kj::Array<bool> waiting;
  size_t first = 0;
  size_t count = 0;
};

}  // namespace troupe::vsock
