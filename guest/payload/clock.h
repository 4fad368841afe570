#pragma once

#include <stdint.h>

#include "guest/payload/acpi.h"

namespace payload {

struct TscRate {
  uint64_t hz;         // 0: unknown
  const char* source;  // where it comes from
};

// The frequency of the time-stamp counter: as the hypervisor or the processor tells it, else
// measured against the ACPI timer.
TscRate tscRate(const Acpi& acpi);

}  // namespace payload
