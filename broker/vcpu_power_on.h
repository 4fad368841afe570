#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "third_party/linux_kvm.h"

namespace troupe::broker {

// The model-specific registers of a vCPU that a guest may change and KVM can tell: those of
// KVM_GET_MSR_INDEX_LIST, but for Hyper-V's, which our guests do not have. `kvm` is borrowed; none
// where KVM has no such list.
kj::Array<uint32_t> changeableMsrs(int kvm);

// All that a vCPU is before its first instruction, to be put back when the machine is reset. What
// the host's KVM cannot tell is left out.
class VcpuPowerOn {
 public:
  // Reads it from `vcpu`, which has not run yet. `msrs`: see changeableMsrs().
  VcpuPowerOn(int vcpu, kj::ArrayPtr<const uint32_t> msrs);
  KJ_DISALLOW_COPY(VcpuPowerOn);

  // `vcpu`: the same, while its thread is not in KVM_RUN and nothing of its last exit is left to be
  // completed. Its time-stamp counter begins at 0 again. Throws TRP-kvm-003.
  void putBack(int vcpu) const;

 private:
  struct State {
    kvm_regs registers;
    kvm_sregs special;
    kvm_lapic_state apic;
    kvm_mp_state running;
    kvm_vcpu_events events;
    kvm_debugregs debug;
    kvm_xcrs extended;
    kvm_xsave vectors;
  };

  void putBackMsrs(int vcpu) const;

  State state;
  bool hasEvents, hasDebug, hasExtended, hasVectors;
  kj::Array<kvm_msr_entry> msrs;
};

}  // namespace troupe::broker
