#include "broker/kvm_vm.h"

#include "broker/kvm_call.h"
#include "broker/memory_map.h"
#include "third_party/linux_kvm.h"

namespace troupe::broker {
namespace {

constexpr int API_VERSION = 12;  // the only one there ever was since Linux 2.6.22

struct Needed {
  int capability;
  kj::StringPtr name;
};

const Needed NEEDED[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"_kj},
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"_kj},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"_kj},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"_kj},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"_kj},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"_kj},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"_kj},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"_kj},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"_kj},
    {KVM_CAP_IOEVENTFD_ANY_LENGTH, "KVM_CAP_IOEVENTFD_ANY_LENGTH"_kj},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"_kj},
};

void requireApi(int kvm) {
  int version = ::ioctl(kvm, KVM_GET_API_VERSION, 0);
  if (version == API_VERSION) return;
  refuse("TRP-kvm-001: what was handed over as /dev/kvm is no KVM device (version ", version,
         " instead of ", API_VERSION, "); `ls -l /dev/kvm` shows it");
}

}  // namespace

KvmVm::KvmVm(int kvm, FdTable& fds) : kvmFd(kvm) {
  requireApi(kvm);
  for (auto& needed : NEEDED) {
    if (extension(needed.capability) > 0) continue;
    refuse("TRP-kvm-002: the host's KVM lacks ", needed.name,
           "; `uname -r` shows the kernel, which must be 4.12 or newer");
  }
  vcpuRunSize = kvmCall(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
  // Some kernels leave the CPUID bit out of KVM_GET_SUPPORTED_CPUID and say it here alone.
  tscDeadlineTimer = extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  kj::AutoCloseFd made(kvmCall(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM"));
  vm = fds.place("vm", 0, made);
}

int KvmVm::extension(int capability) const {
  return ::ioctl(kvmFd, KVM_CHECK_EXTENSION, capability);
}

void KvmVm::addMemory(const GuestRam& ram, const HostMemory& host) {
  uint32_t index = 0;
  for (size_t i = 0; i < ram.regions().size(); ++i) {
    auto& region = ram.regions()[i];
    addSlot(index++, region.guestAddress, region.size, ram.hostPointer(i));
  }
  for (size_t i = 0; i < host.regions().size(); ++i) {
    auto& region = host.regions()[i];
    addSlot(index++, region.guestAddress, region.size, host.mapping(i));
  }
}

void KvmVm::addSlot(uint32_t index, uint64_t guestAddress, uint64_t size, const void* mapping) {
  kvm_userspace_memory_region slot{};
  slot.slot = index;
  slot.guest_phys_addr = guestAddress;
  slot.memory_size = size;
  slot.userspace_addr = reinterpret_cast<uint64_t>(mapping);
  kvmCall(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
}

void KvmVm::addInterruptControllers() {
  uint64_t identityMap = KVM_IDENTITY_MAP_ADDRESS;
  kvmCall(vm, KVM_SET_IDENTITY_MAP_ADDR, &identityMap, "KVM_SET_IDENTITY_MAP_ADDR");
  kvmCall(vm, KVM_SET_TSS_ADDR, KVM_TSS_ADDRESS, "KVM_SET_TSS_ADDR");
  kvmCall(vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
  for (auto i : kj::indices(freshControllers)) {
    freshControllers[i].chip_id = i;
    kvmCall(vm, KVM_GET_IRQCHIP, &freshControllers[i], "KVM_GET_IRQCHIP");
  }
}

void KvmVm::resetInterruptControllers() {
  for (auto& chip : freshControllers)
    kvmCall(vm, KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP");
}

void KvmVm::requireVcpus(uint32_t count) const {
  int most = extension(KVM_CAP_MAX_VCPUS);
  if (most <= 0) most = extension(KVM_CAP_NR_VCPUS);
  if (count <= uint32_t(kj::max(most, 1))) return;
  refuse("TRP-kvm-004: ", count, " vCPUs are more than the ", most,
         " that the host's KVM runs in one VM");
}

kj::AutoCloseFd KvmVm::addVcpu(uint32_t index, FdTable& fds) const {
  kj::AutoCloseFd vcpu(kvmCall(vm, KVM_CREATE_VCPU, index, "KVM_CREATE_VCPU"));
  return fds.place("vcpu", index, vcpu);
}

}  // namespace troupe::broker
