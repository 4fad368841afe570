#pragma once

#include "broker/boot_info.h"

namespace troupe::broker {

// Registers of a vCPU before its first instruction. `vcpu` is borrowed; all throw TRP-kvm-003.

// What firmware would have set: memory types by default write-back, string instructions fast.
void setFirmwareMsrs(int vcpu);

// The local APIC's two inputs: NMI on LINT1; nothing on LINT0, where a PC's PIC would be. An
// application processor loses this at INIT, and its operating system sets it again.
void setLocalInterruptPins(int vcpu);

// Puts the first vCPU at the entry `boot` says, in the mode its protocol wants.
void setBootRegisters(int vcpu, const BootState& boot);

}  // namespace troupe::broker
