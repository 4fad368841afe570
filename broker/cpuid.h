#pragma once

#include <kj/array.h>

#include <cstdint>

#include "broker/cpu_features.h"
#include "third_party/linux_kvm.h"

namespace troupe::broker {

// What every vCPU of one VM answers to CPUID, but for its number.
struct CpuidPlan {
  uint32_t vcpus;         // 1 to 255, in one package, one thread per core
  bool tscDeadlineTimer;  // whether KVM does it, whatever its CPUID list says
  uint32_t tscKhz;        // 0: unknown
  kj::ArrayPtr<const CpuFeature> masked;
};

// What the host's KVM offers a guest (KVM_GET_SUPPORTED_CPUID).
kj::Array<kvm_cpuid_entry2> supportedCpuid(int kvm);

// CPUID of all vCPUs out of what KVM supports: topology, the timer a machine without a PIT needs,
// TSC and bus frequency at 0x40000010, no performance counters, nothing that is masked. The host's
// own topology and APIC ids leave no trace.
kj::Array<kvm_cpuid_entry2> planCpuid(kj::ArrayPtr<const kvm_cpuid_entry2> supported,
                                      const CpuidPlan& plan);

// Writes the APIC id of one vCPU into what planCpuid() made.
void setApicId(kj::ArrayPtr<kvm_cpuid_entry2> entries, uint32_t apicId);

}  // namespace troupe::broker
