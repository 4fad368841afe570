#pragma once

#include <kj/common.h>

#include <atomic>
#include <cstdint>

namespace troupe::virtio {

// What is seen of one thread from outside: a word that changes whenever the thread gets on.
struct Sign {
  enum class State : uint8_t {
    NONE,    // it has shown nothing yet
    WORKS,   // and is to get on
    WAITS,   // for events, for as long as there are none
    LABOURS  // at something that takes as long as it takes
  };
  static constexpr uint64_t STATE_BITS = 3;

  State state() const { return State(word & STATE_BITS); }
  bool operator==(const Sign& other) const { return word == other.word; }
  bool operator!=(const Sign& other) const { return word != other.word; }

  uint64_t word;
};

// By what a thread shows that it is not stuck: a store for each step, no call.
class Pulse {
 public:
  Pulse() : place(&nowhere) {}
  KJ_DISALLOW_COPY(Pulse);

  // The thread's own: it gets on.
  void beat() { show(own + Sign::STATE_BITS + 1); }
  void become(Sign::State state) {
    show(((own + Sign::STATE_BITS + 1) & ~Sign::STATE_BITS) | uint64_t(state));
  }

  // From now on it shows there, where it works until it says otherwise. From any thread, once.
  void showIn(uint64_t& word) {
    __atomic_store_n(&word, uint64_t(Sign::State::WORKS), __ATOMIC_RELAXED);
    place.store(&word, std::memory_order_release);
  }

 private:
  void show(uint64_t next) {
    own = next;
    __atomic_store_n(place.load(std::memory_order_acquire), next, __ATOMIC_RELAXED);
  }

  uint64_t own = uint64_t(Sign::State::WORKS);
  uint64_t nowhere = 0;
  std::atomic<uint64_t*> place;
};

}  // namespace troupe::virtio
