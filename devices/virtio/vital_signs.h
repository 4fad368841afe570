#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/time.h>

#include <cstdint>

namespace troupe::virtio {

// By what `troupe` sees that a device process is not stuck, without asking it: counters in memory
// that both map. The process counts them up at BEAT from when it is ready.
class VitalSigns {
 public:
  // A process and the one that waits to take its place.
  static constexpr uint8_t PLACES = 2;
  static constexpr kj::Duration BEAT = 100 * kj::MILLISECONDS;

  struct Beats {
    uint64_t loop;         // turns of its event loop
    uint64_t engine;       // of them, those at which no other thread of its was stuck either
    uint64_t stuckThread;  // the number of one that is, plus 1; else 0
  };

  // `memory`: at least PLACES cache lines; each place is written by one process at a time.
  VitalSigns(kj::ArrayPtr<kj::byte> memory, uint8_t place)
      : words(reinterpret_cast<uint64_t*>(memory.begin() + CACHE_LINE * (place % PLACES))) {}

  // `stuckThread`: the queue whose thread has made no turn since the beat before.
  void beat(kj::Maybe<uint32_t> stuckThread) {
    KJ_IF_MAYBE (thread, stuckThread) {
      __atomic_store_n(words + 2, uint64_t(*thread) + 1, __ATOMIC_RELAXED);
    } else {
      increment(words + 1);
      __atomic_store_n(words + 2, uint64_t(0), __ATOMIC_RELAXED);
    }
    increment(words);
  }

  Beats beats() const {
    return {__atomic_load_n(words, __ATOMIC_RELAXED), __atomic_load_n(words + 1, __ATOMIC_RELAXED),
            __atomic_load_n(words + 2, __ATOMIC_RELAXED)};
  }

 private:
  static constexpr size_t CACHE_LINE = 64;

  static void increment(uint64_t* word) {
    __atomic_store_n(word, __atomic_load_n(word, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
  }

  uint64_t* const words;
};

}  // namespace troupe::virtio
