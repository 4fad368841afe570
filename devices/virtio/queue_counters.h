#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/virtio/spin.h"

namespace troupe::virtio {

// What one virtqueue has done, in memory that outlives the device process and that `troupe` maps to
// read. Whoever reads takes it as the words of somebody who may be hostile: numbers, and no more.
struct CounterSlot {
  static constexpr uint32_t WAITS = 10;

  uint64_t requests;        // chains that were returned
  uint64_t inFlight;        // chains taken and not yet returned
  uint64_t fromGuestBytes;  // of the chains that were returned: what the driver put in,
  uint64_t toGuestBytes;    // and what it got
  uint64_t errors;          // answered with an error, dropped; rings that broke
  uint64_t waitNs;          // from being taken to being returned, all that were timed together
  uint64_t waits[WAITS];    // how many of these took up to waitBound(i); the last: longer
};
static_assert(sizeof(CounterSlot) == 128, "two cache lines, which one thread writes");

// The last wait that counts for waits[i].
constexpr uint64_t waitBound(uint32_t i) {
  return uint64_t(4096) << (2 * i);
}

// Which of `waits` an interval belongs to.
constexpr uint32_t waitIndex(uint64_t ns) {
  uint64_t above = ns == 0 ? 0 : (ns - 1) >> 12;
  uint32_t index = above == 0 ? 0 : (65 - __builtin_clzll(above)) / 2;
  return index < CounterSlot::WAITS ? index : CounterSlot::WAITS - 1;
}

// The counters of a device: one page.
struct CounterPage {
  static constexpr uint32_t QUEUES = 31;       // as many as a device may have (device.capnp)
  static constexpr uint64_t LAYOUT = 0x1c01u;  // changes with this struct, for `device replace`

  uint64_t layout;
  uint64_t unused[15];
  CounterSlot queues[QUEUES];
};
static_assert(sizeof(CounterPage) == 4096, "one page, mapped read-only by `troupe`");

// The writing side, for the one thread that serves the queue. A request costs a handful of stores
// to lines nobody else writes; the clock is read for one request of TIMED_EACH.
class QueueCounters {
 public:
  static constexpr uint32_t TIMED_EACH = 16;

  // `slot`: zero, or as another process of this device left it.
  explicit QueueCounters(CounterSlot& slot) : slot(slot) {}
  KJ_DISALLOW_COPY(QueueCounters);

  // A ring begins, or is gone: nothing is in flight.
  void clear() {
    store(slot.inFlight, 0);
    timedSince = 0;
  }

  // `head` was taken, so that `inFlight` are.
  void take(uint16_t head, uint32_t inFlight) {
    store(slot.inFlight, inFlight);
    if (turn++ % TIMED_EACH != 0 || timedSince != 0) return;
    timedHead = head;
    timedSince = monotonicNs();
  }

  // `head` was returned; `inFlight` are left.
  void giveBack(uint16_t head, uint64_t fromGuestBytes, uint64_t toGuestBytes, uint32_t inFlight) {
    add(slot.requests, 1);
    add(slot.fromGuestBytes, fromGuestBytes);
    add(slot.toGuestBytes, toGuestBytes);
    store(slot.inFlight, inFlight);
    if (timedSince == 0 || head != timedHead) return;
    uint64_t wait = monotonicNs() - timedSince;
    timedSince = 0;
    add(slot.waitNs, wait);
    add(slot.waits[waitIndex(wait)], 1);
  }

  void fail() { add(slot.errors, 1); }

 private:
  // Whole words, so that a reader sees no half of one. Nobody else writes.
  static void store(uint64_t& word, uint64_t value) {
    __atomic_store_n(&word, value, __ATOMIC_RELAXED);
  }
  static void add(uint64_t& word, uint64_t value) {
    store(word, __atomic_load_n(&word, __ATOMIC_RELAXED) + value);
  }

  CounterSlot& slot;
  uint32_t turn = 0;
  uint16_t timedHead = 0;
  uint64_t timedSince = 0;  // 0: none is being timed
};

}  // namespace troupe::virtio
