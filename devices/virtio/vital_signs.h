#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "devices/virtio/pulse.h"

namespace troupe::virtio {

// By what `troupe` sees that a device process is not stuck, without asking it or waking it: a word
// for each of its threads, in memory that both map. A process at rest does nothing for it.
class VitalSigns {
 public:
  // A process and the one that waits to take its place.
  static constexpr uint8_t PLACES = 2;
  // The main thread, which is 0 and waits for events in one place (loop_pulse.h), and others.
  static constexpr uint32_t THREADS = 32;
  static constexpr size_t BYTES = PLACES * THREADS * 64;

  // `memory`: BYTES, aligned to cache lines; each place is written by one process at a time.
  VitalSigns(kj::ArrayPtr<kj::byte> memory, uint8_t place)
      : lines(reinterpret_cast<Line*>(memory.begin()) + THREADS * (place % PLACES)) {}

  // Of the thread whose name ends in a "-", letters and this number less one: "blk-q0" is 1.
  uint64_t& word(uint32_t thread) const { return lines[thread].word; }

  Sign sign(uint32_t thread) const { return {__atomic_load_n(&word(thread), __ATOMIC_RELAXED)}; }

  // The number of a thread that is not the main one; none when it shows nothing.
  static kj::Maybe<uint32_t> threadOf(kj::StringPtr name) {
    size_t digits = name.size();
    while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9')
      digits--;
    size_t letters = digits;
    while (letters > 0 && name[letters - 1] >= 'a' && name[letters - 1] <= 'z')
      letters--;
    bool isOne = letters > 0 && name[letters - 1] == '-' && letters < digits &&
                 digits < name.size() && name.size() - digits <= 2;
    if (!isOne) return nullptr;
    uint32_t number = 0;
    for (char digit : name.slice(digits))
      number = number * 10 + (digit - '0');
    if (number + 1 >= THREADS) return nullptr;
    return number + 1;
  }

 private:
  struct alignas(64) Line {
    uint64_t word;
  };
  static_assert(sizeof(Line) * PLACES * THREADS == BYTES, "a cache line for each thread");

  Line* lines;
};

}  // namespace troupe::virtio
