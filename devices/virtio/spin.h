#pragma once

#include <kj/common.h>
#include <time.h>

#include <cstdint>

namespace troupe::virtio {

// Nanoseconds of CLOCK_MONOTONIC.
inline uint64_t monotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * uint64_t(1000000000) + now.tv_nsec;
}

// Decides how long a queue's thread looks for work before it sleeps.
//
// A thread that sleeps costs a wake-up for each request (some 10 µs); one that spins costs a CPU.
// So spinning is paid from a budget: work that comes while spinning, or so soon after falling
// asleep that spinning would have met it, restores the budget; each spin that finds nothing halves
// it, down to nothing. A queue without requests is asleep after at most twice the limit, and
// nothing wakes it.
//
//   for (;;) {
//     serve();
//     if (spin.until([&] { return ring.hasWork(); })) continue;
//     … ask for a notification, look once more, sleep …
//     spin.woken();
//   }
//
// `Clock` returns nanoseconds that never go back. One thread.
template <uint64_t (*clock)() = monotonicNs>
class AdaptiveSpin {
 public:
  // Spins `limitMicros` at a time at most; 0 never spins.
  explicit AdaptiveSpin(uint32_t limitMicros)
      : limitNs(limitMicros * uint64_t(1000)), budgetNs(limitNs) {}

  // Spins until `ready()`: true. False when the budget is used up: then sleep, and call woken().
  template <typename Ready>
  bool until(Ready&& ready) {
    if (ready()) return true;  // a busy queue never looks at the clock
    uint64_t start = clock();
    asleepSince = start;
    if (budgetNs == 0) return false;
    do {
      for (uint32_t i = 0; i < LOOKS_PER_CLOCK; i++) {
        if (ready()) {
          budgetNs = limitNs;
          return true;
        }
        __builtin_ia32_pause();
      }
      asleepSince = clock();
    } while (asleepSince - start < budgetNs);
    budgetNs = budgetNs / 2 < SHORTEST_NS ? 0 : budgetNs / 2;
    return false;
  }

  // The sleep after a false until() has ended.
  void woken() {
    if (clock() - asleepSince < limitNs) budgetNs = limitNs;
  }

  uint64_t budget() const { return budgetNs; }

 private:
  static constexpr uint32_t LOOKS_PER_CLOCK = 16;  // a pause is 40 to 140 cycles, the clock 50
  static constexpr uint64_t SHORTEST_NS = 1000;    // less than a sleep costs to begin

  const uint64_t limitNs;
  uint64_t budgetNs;
  uint64_t asleepSince = 0;
};

}  // namespace troupe::virtio
