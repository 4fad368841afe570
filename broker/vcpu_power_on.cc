#include "broker/vcpu_power_on.h"

#include <kj/vector.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "broker/kvm_call.h"

namespace troupe::broker {
namespace {

constexpr uint32_t MSR_TSC = 0x10;
constexpr uint32_t FIRST_HYPERV_MSR = 0x40000000;  // asking for one makes KVM set Hyper-V up
constexpr uint32_t LAST_HYPERV_MSR = 0x400000ff;
constexpr uint32_t MOST_MSRS = 1024;

// A kvm_msrs with its entries.
class MsrList {
 public:
  explicit MsrList(size_t count)
      : words(kj::heapArray<uint64_t>((sizeof(kvm_msrs) + count * sizeof(kvm_msr_entry)) / 8)) {
    memset(words.begin(), 0, words.size() * 8);
  }
  kvm_msrs& head() { return *reinterpret_cast<kvm_msrs*>(words.begin()); }
  kvm_msr_entry* entries() { return reinterpret_cast<kvm_msr_entry*>(words.begin() + 1); }

 private:
  static_assert(sizeof(kvm_msrs) == 8 && sizeof(kvm_msr_entry) == 16, "fixed by the kernel");
  kj::Array<uint64_t> words;
};

// The values of those that KVM tells. It stops at the first that it does not.
kj::Array<kvm_msr_entry> readMsrs(int vcpu, kj::ArrayPtr<const uint32_t> indices) {
  kj::Vector<kvm_msr_entry> read(indices.size());
  while (indices.size() > 0) {
    MsrList list(indices.size());
    list.head().nmsrs = indices.size();
    for (auto i : kj::indices(indices))
      list.entries()[i].index = indices[i];
    int got = ::ioctl(vcpu, KVM_GET_MSRS, &list.head());
    if (got < 0) break;
    read.addAll(list.entries(), list.entries() + got);
    indices = indices.slice(kj::min(size_t(got) + 1, indices.size()), indices.size());
  }
  return read.releaseAsArray();
}

void setMsr(int vcpu, kvm_msr_entry entry) {
  MsrList list(1);
  list.head().nmsrs = 1;
  list.entries()[0] = entry;
  // Some can be read only, or hold what the host says; KVM answers 0 for them.
  kvmCall(vcpu, KVM_SET_MSRS, &list.head(), "KVM_SET_MSRS");
}

template <typename T>
bool read(int vcpu, unsigned long request, T& value) {
  memset(&value, 0, sizeof value);
  return ::ioctl(vcpu, request, &value) >= 0;
}

}  // namespace

kj::Array<uint32_t> changeableMsrs(int kvm) {
  auto words = kj::heapArray<uint32_t>(1 + MOST_MSRS);
  auto& list = *reinterpret_cast<kvm_msr_list*>(words.begin());
  list.nmsrs = MOST_MSRS;
  if (::ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &list) < 0) return nullptr;
  kj::Vector<uint32_t> indices(list.nmsrs);
  for (uint32_t index : words.slice(1, 1 + kj::min(list.nmsrs, MOST_MSRS))) {
    bool isHyperV = index >= FIRST_HYPERV_MSR && index <= LAST_HYPERV_MSR;
    if (index != MSR_TSC && !isHyperV) indices.add(index);
  }
  return indices.releaseAsArray();
}

VcpuPowerOn::VcpuPowerOn(int vcpu, kj::ArrayPtr<const uint32_t> indices) {
  kvmCall(vcpu, KVM_GET_REGS, &state.registers, "KVM_GET_REGS");
  kvmCall(vcpu, KVM_GET_SREGS, &state.special, "KVM_GET_SREGS");
  kvmCall(vcpu, KVM_GET_LAPIC, &state.apic, "KVM_GET_LAPIC");
  kvmCall(vcpu, KVM_GET_MP_STATE, &state.running, "KVM_GET_MP_STATE");
  hasEvents = read(vcpu, KVM_GET_VCPU_EVENTS, state.events);
  hasDebug = read(vcpu, KVM_GET_DEBUGREGS, state.debug);
  hasExtended = read(vcpu, KVM_GET_XCRS, state.extended);
  hasVectors = read(vcpu, KVM_GET_XSAVE, state.vectors);
  msrs = readMsrs(vcpu, indices);
}

void VcpuPowerOn::putBack(int vcpu) const {
  // Events first: they end system management mode, in which other registers mean something else.
  // The base address of the local APIC, with its mode, is among the special registers.
  if (hasEvents) kvmCall(vcpu, KVM_SET_VCPU_EVENTS, &state.events, "KVM_SET_VCPU_EVENTS");
  kvmCall(vcpu, KVM_SET_SREGS, &state.special, "KVM_SET_SREGS");
  kvmCall(vcpu, KVM_SET_LAPIC, &state.apic, "KVM_SET_LAPIC");
  kvmCall(vcpu, KVM_SET_MP_STATE, &state.running, "KVM_SET_MP_STATE");
  if (hasExtended) kvmCall(vcpu, KVM_SET_XCRS, &state.extended, "KVM_SET_XCRS");
  if (hasVectors) kvmCall(vcpu, KVM_SET_XSAVE, &state.vectors, "KVM_SET_XSAVE");
  if (hasDebug) kvmCall(vcpu, KVM_SET_DEBUGREGS, &state.debug, "KVM_SET_DEBUGREGS");
  putBackMsrs(vcpu);
  kvmCall(vcpu, KVM_SET_REGS, &state.registers, "KVM_SET_REGS");
}

// Only those that the guest changed: some cannot be set, not even to what they are.
void VcpuPowerOn::putBackMsrs(int vcpu) const {
  auto indices = KJ_MAP(msr, msrs) {
    return msr.index;
  };
  size_t next = 0;
  for (auto& now : readMsrs(vcpu, indices)) {
    while (next < msrs.size() && msrs[next].index != now.index)
      ++next;
    if (next == msrs.size()) return;
    if (msrs[next].data != now.data) setMsr(vcpu, msrs[next]);
  }
  // KVM takes a 0 for the start of a machine, and keeps the counters of its vCPUs together.
  setMsr(vcpu, kvm_msr_entry{MSR_TSC, 0, 0});
}

}  // namespace troupe::broker
