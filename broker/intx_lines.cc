#include "broker/intx_lines.h"

#include <kj/debug.h>

namespace troupe::broker {

IntxLines::IntxLines(Interrupts& interrupts) : interrupts(interrupts) {}

void IntxLines::set(uint32_t gsi, uint8_t slot, bool level) {
  uint32_t index = gsi - FIRST_INTX_GSI;
  KJ_REQUIRE(index < INTX_GSI_COUNT && slot < 32, gsi, slot);
  std::lock_guard<std::mutex> lock(mutex);
  uint32_t before = asserted[index];
  uint32_t after = level ? before | 1u << slot : before & ~(1u << slot);
  asserted[index] = after;
  // Under the lock, so that two threads' edges reach the pin in the order they were decided.
  if ((before == 0) != (after == 0)) interrupts.setLine(gsi, after != 0);
}

}  // namespace troupe::broker
