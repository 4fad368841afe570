#include "guest/payload/virtio_ring.h"

#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr uint16_t AVAILABLE_NO_INTERRUPT = 1;  // §2.7.6
constexpr uint16_t USED_NO_NOTIFY = 1;          // §2.7.8

// x86 keeps loads in order and stores in order; only the compiler must be told.
void compilerBarrier() {
  asm volatile("" : : : "memory");
}

// A load may still overtake an earlier store: between "here is work" and "do you sleep?".
void storeLoadBarrier() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

// Whether `event` lies in [before, now), as free-running indices (§2.7.10.1).
bool passed(uint16_t event, uint16_t now, uint16_t before) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

}  // namespace

bool Ring::create(uint16_t size, bool useEventIndex) {
  *this = Ring();
  descriptors = static_cast<Descriptor*>(allocate(size * sizeof(Descriptor)));
  available = static_cast<uint16_t*>(allocate(6 + 2 * size));
  usedRing = static_cast<uint16_t*>(allocate(6 + 8 * size));
  if (!descriptors || !available || !usedRing) {
    return false;
  }
  ringSize = size;
  eventIndex = useEventIndex;
  refuseInterrupts();
  return true;
}

void Ring::offer(uint16_t head) {
  available[2 + offered % ringSize] = head;
  ++offered;
}

bool Ring::publish() {
  uint16_t before = published;
  if (before == offered) {
    return false;
  }
  compilerBarrier();
  available[1] = offered;
  published = offered;
  storeLoadBarrier();
  return eventIndex ? passed(availableEvent(), offered, before) : !(usedRing[0] & USED_NO_NOTIFY);
}

bool Ring::hasUsed() const {
  return usedRing[1] != taken;
}

UsedElement Ring::take() {
  compilerBarrier();
  auto element = reinterpret_cast<volatile uint32_t*>(usedRing + 2) + 2 * (taken % ringSize);
  UsedElement result{element[0], element[1]};
  ++taken;
  // A refusal by index wears off when the indices have gone half way round.
  if (eventIndex && refusing && taken % 0x1000 == 0) {
    refuseInterrupts();
  }
  return result;
}

void Ring::wantInterrupt() {
  refusing = false;
  available[0] = 0;
  if (eventIndex) {
    usedEvent() = taken;
  }
  storeLoadBarrier();
}

void Ring::refuseInterrupts() {
  refusing = true;
  available[0] =
      eventIndex ? 0 : AVAILABLE_NO_INTERRUPT;  // must be 0 with event indices (§2.7.7.1)
  if (eventIndex) {
    usedEvent() = taken + 0x7fff;
  }
}

}  // namespace payload
