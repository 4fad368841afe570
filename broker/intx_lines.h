#pragma once

#include <kj/common.h>

#include <cstdint>
#include <mutex>

#include "broker/interrupts.h"
#include "broker/memory_map.h"

namespace troupe::broker {

// The level-triggered pins that PCI functions share: a pin is high while any of its functions
// asserts it. Any thread.
class IntxLines {
 public:
  explicit IntxLines(Interrupts& interrupts);
  KJ_DISALLOW_COPY(IntxLines);

  // `gsi`: FIRST_INTX_GSI and the INTX_GSI_COUNT - 1 after it. `slot`: who asserts it, 0 to 31.
  void set(uint32_t gsi, uint8_t slot, bool level);

 private:
  Interrupts& interrupts;
  std::mutex mutex;                        // a mutex the thread sanitizer knows, unlike KJ's
  uint32_t asserted[INTX_GSI_COUNT] = {};  // one bit per slot
};

}  // namespace troupe::broker
