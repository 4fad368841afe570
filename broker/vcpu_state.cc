#include "broker/vcpu_state.h"

#include <cstring>

#include "broker/boot_layout.h"
#include "broker/kvm_call.h"
#include "third_party/linux_kvm.h"

namespace troupe::broker {
namespace {

constexpr uint32_t MSR_MISC_ENABLE = 0x1a0;
constexpr uint64_t MISC_ENABLE_FAST_STRING = 1;
constexpr uint32_t MSR_MTRR_DEF_TYPE = 0x2ff;
constexpr uint64_t MTRR_ENABLE_WRITE_BACK = 1 << 11 | 6;

constexpr uint32_t APIC_LVT0 = 0x350;
constexpr uint32_t APIC_LVT1 = 0x360;
constexpr uint32_t LVT_MASKED = 1 << 16;
constexpr uint32_t LVT_NMI = 4 << 8;

constexpr uint64_t CR0_PE = 1 << 0;
constexpr uint64_t CR0_ET = 1 << 4;
constexpr uint64_t CR0_PG = 1ull << 31;
constexpr uint64_t CR4_PAE = 1 << 5;
constexpr uint64_t EFER_LME = 1 << 8;
constexpr uint64_t EFER_LMA = 1 << 10;
constexpr uint64_t RFLAGS_FIXED = 2;

kvm_segment flatSegment(uint16_t selector, uint8_t type, bool longMode) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.s = 1;
  segment.g = 1;
  segment.l = longMode;
  segment.db = !longMode;
  return segment;
}

kvm_segment taskSegment() {
  kvm_segment segment{};
  segment.limit = 0x67;
  segment.selector = BOOT_TASK_SELECTOR;
  segment.type = 0xb;  // busy; what VM entry demands
  segment.present = 1;
  return segment;
}

constexpr uint8_t CODE = 0xb;  // executed, readable, accessed
constexpr uint8_t DATA = 0x3;  // writable, accessed

}  // namespace

void setFirmwareMsrs(int vcpu) {
  const kvm_msr_entry wanted[] = {
      {MSR_MISC_ENABLE, 0, MISC_ENABLE_FAST_STRING},
      {MSR_MTRR_DEF_TYPE, 0, MTRR_ENABLE_WRITE_BACK},
  };
  alignas(kvm_msrs) kj::byte room[sizeof(kvm_msrs) + sizeof(wanted)] = {};
  auto& list = *reinterpret_cast<kvm_msrs*>(room);
  list.nmsrs = kj::size(wanted);
  memcpy(room + sizeof(kvm_msrs), wanted, sizeof(wanted));
  int set = kvmCall(vcpu, KVM_SET_MSRS, &list, "KVM_SET_MSRS");
  if (set != int(kj::size(wanted))) {
    refuse("TRP-kvm-006: the host's KVM refuses the model-specific register 0x",
           kj::hex(wanted[set].index));
  }
}

void setLocalInterruptPins(int vcpu) {
  kvm_lapic_state apic;
  kvmCall(vcpu, KVM_GET_LAPIC, &apic, "KVM_GET_LAPIC");
  uint32_t lint0 = LVT_MASKED;
  uint32_t lint1 = LVT_NMI;
  memcpy(apic.regs + APIC_LVT0, &lint0, sizeof(lint0));
  memcpy(apic.regs + APIC_LVT1, &lint1, sizeof(lint1));
  kvmCall(vcpu, KVM_SET_LAPIC, &apic, "KVM_SET_LAPIC");
}

void setBootRegisters(int vcpu, const BootState& boot) {
  bool longMode = boot.protocol != BootProtocol::PVH;
  kvm_sregs sregs;
  kvmCall(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
  sregs.cs = flatSegment(BOOT_CODE_SELECTOR, CODE, longMode);
  sregs.ds = flatSegment(BOOT_DATA_SELECTOR, DATA, false);
  sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
  sregs.tr = taskSegment();
  sregs.gdt.base = BOOT_GDT_ADDRESS;
  sregs.gdt.limit = BOOT_GDT_LIMIT;
  sregs.idt.base = 0;
  sregs.idt.limit = 0;
  sregs.cr0 = CR0_PE | CR0_ET;
  sregs.cr4 = 0;
  if (longMode) {
    sregs.cr0 |= CR0_PG;
    sregs.cr3 = BOOT_PAGE_TABLES_ADDRESS;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
  }
  kvmCall(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");

  kvm_regs regs{};
  regs.rflags = RFLAGS_FIXED;
  regs.rip = boot.entry;
  (longMode ? regs.rsi : regs.rbx) = boot.info;
  kvmCall(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

}  // namespace troupe::broker
