#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe::broker {

enum class CpuidRegister : uint8_t { EAX, EBX, ECX, EDX };

// One bit of a CPUID answer.
struct CpuFeature {
  uint32_t leaf;
  uint32_t subleaf;
  CpuidRegister reg;
  uint8_t bit;
};

// The CPUID bits behind `names`, which are those of the line "flags" in /proc/cpuinfo. Throws
// TRP-cfg-101 with the nearest known name when one is unknown.
kj::Array<CpuFeature> cpuFeatures(kj::ArrayPtr<const kj::StringPtr> names);

}  // namespace troupe::broker
