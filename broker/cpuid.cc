#include "broker/cpuid.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include <cerrno>
#include <cstring>

#include "broker/kvm_call.h"

namespace troupe::broker {
namespace {

constexpr uint32_t LEAF_FEATURES = 0x1;
constexpr uint32_t LEAF_CACHES = 0x4;  // Intel
constexpr uint32_t LEAF_PERFORMANCE_COUNTERS = 0xa;
constexpr uint32_t LEAF_TOPOLOGY = 0xb;
constexpr uint32_t LEAF_TOPOLOGY_V2 = 0x1f;
constexpr uint32_t LEAF_HYPERVISOR = 0x40000000;
constexpr uint32_t LEAF_TIMING = 0x40000010;  // TSC and APIC bus frequency, in kHz
constexpr uint32_t LEAF_EXTENDED_FEATURES = 0x80000001;
constexpr uint32_t LEAF_SIZES = 0x80000008;  // AMD: core count in ECX
constexpr uint32_t LEAF_CACHES_AMD = 0x8000001d;
constexpr uint32_t LEAF_TOPOLOGY_AMD = 0x8000001e;
constexpr uint32_t LEAF_PERFORMANCE_AMD = 0x80000022;

constexpr uint32_t ECX_PDCM = 1u << 15;
constexpr uint32_t ECX_TSC_DEADLINE = 1u << 24;
constexpr uint32_t ECX_HYPERVISOR = 1u << 31;
constexpr uint32_t EDX_HTT = 1u << 28;
constexpr uint32_t AMD_CMP_LEGACY = 1u << 1;
constexpr uint32_t AMD_PERFORMANCE_COUNTERS = 1u << 23 | 1u << 24 | 1u << 28;

constexpr uint32_t KVM_APIC_BUS_KHZ = 1000000;  // its local APIC counts nanoseconds

// Bits of the APIC id that number cores in the package.
uint32_t coreBits(uint32_t vcpus) {
  uint32_t bits = 0;
  while ((1u << bits) < vcpus)
    ++bits;
  return bits;
}

bool isAmd(kj::ArrayPtr<const kvm_cpuid_entry2> entries) {
  for (auto& e : entries) {
    if (e.function != 0) continue;
    char vendor[12];
    memcpy(vendor, &e.ebx, 4);
    memcpy(vendor + 4, &e.edx, 4);
    memcpy(vendor + 8, &e.ecx, 4);
    return memcmp(vendor, "AuthenticAMD", 12) == 0 || memcmp(vendor, "HygonGenuine", 12) == 0;
  }
  return false;
}

uint32_t highestBasicLeaf(kj::ArrayPtr<const kvm_cpuid_entry2> entries) {
  for (auto& e : entries) {
    if (e.function == 0) return e.eax;
  }
  return 0;
}

void setBits(uint32_t& word, uint32_t bits, bool on) {
  word = on ? word | bits : word & ~bits;
}

// EAX of a leaf-4 style cache description: who shares it, and how many cores there are.
uint32_t cacheSharing(uint32_t eax, uint32_t vcpus, bool withCoreCount) {
  uint32_t type = eax & 0x1f;
  if (type == 0) return eax;
  uint32_t level = eax >> 5 & 7;
  uint32_t idsOfPackage = (1u << coreBits(vcpus)) - 1;
  eax &= withCoreCount ? 0x3fffu : ~(0xfffu << 14);
  if (level >= 3) eax |= idsOfPackage << 14;
  if (withCoreCount) eax |= kj::min(idsOfPackage, 63u) << 26;
  return eax;
}

void planEntry(kvm_cpuid_entry2& e, const CpuidPlan& plan, bool amd) {
  uint32_t several = plan.vcpus > 1;
  switch (e.function) {
    case LEAF_FEATURES:
      e.ebx = (e.ebx & 0xffff) | kj::min(plan.vcpus, 255u) << 16;
      setBits(e.edx, EDX_HTT, several);
      e.ecx = (e.ecx & ~ECX_PDCM) | ECX_HYPERVISOR;
      setBits(e.ecx, ECX_TSC_DEADLINE, plan.tscDeadlineTimer);
      break;
    case LEAF_CACHES:
      e.eax = cacheSharing(e.eax, plan.vcpus, true);
      break;
    case LEAF_PERFORMANCE_COUNTERS:
    case LEAF_PERFORMANCE_AMD:
      e.eax = e.ebx = e.ecx = e.edx = 0;
      break;
    case LEAF_HYPERVISOR:
      if (plan.tscKhz != 0) e.eax = kj::max(e.eax, LEAF_TIMING);
      break;
    case LEAF_EXTENDED_FEATURES:
      if (amd) {
        e.ecx &= ~AMD_PERFORMANCE_COUNTERS;
        setBits(e.ecx, AMD_CMP_LEGACY, several);
      }
      break;
    case LEAF_SIZES:
      if (amd) e.ecx = (e.ecx & ~0xffffu) | coreBits(plan.vcpus) << 12 | (plan.vcpus - 1);
      break;
    case LEAF_CACHES_AMD:
      e.eax = cacheSharing(e.eax, plan.vcpus, false);
      break;
    case LEAF_TOPOLOGY_AMD:
      e.ebx = 0;  // one thread per core; setApicId() adds the core
      e.ecx = 0;  // one node
      break;
  }
}

kvm_cpuid_entry2 topologyLevel(uint32_t subleaf, uint32_t shift, uint32_t count, uint32_t type) {
  kvm_cpuid_entry2 e{};
  e.function = LEAF_TOPOLOGY;
  e.index = subleaf;
  e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  e.eax = shift;
  e.ebx = count;
  e.ecx = type << 8 | subleaf;
  return e;
}

uint32_t& registerOf(kvm_cpuid_entry2& e, CpuidRegister reg) {
  switch (reg) {
    case CpuidRegister::EAX:
      return e.eax;
    case CpuidRegister::EBX:
      return e.ebx;
    case CpuidRegister::ECX:
      return e.ecx;
    case CpuidRegister::EDX:
      return e.edx;
  }
  KJ_UNREACHABLE;
}

void mask(kj::ArrayPtr<kvm_cpuid_entry2> entries, const CpuFeature& feature) {
  for (auto& e : entries) {
    if (e.function == feature.leaf && e.index == feature.subleaf) {
      registerOf(e, feature.reg) &= ~(1u << feature.bit);
    }
  }
}

}  // namespace

kj::Array<kvm_cpuid_entry2> supportedCpuid(int kvm) {
  // Real CPUs need some 50 entries; KVM itself keeps no more than 256.
  constexpr uint32_t MOST_ENTRIES = 256;
  size_t size = sizeof(kvm_cpuid2) + MOST_ENTRIES * sizeof(kvm_cpuid_entry2);
  auto words = kj::heapArray<uint64_t>((size + 7) / 8);
  memset(words.begin(), 0, words.size() * 8);
  auto& list = *reinterpret_cast<kvm_cpuid2*>(words.begin());
  list.nent = MOST_ENTRIES;
  kvmCall(kvm, KVM_GET_SUPPORTED_CPUID, &list, "KVM_GET_SUPPORTED_CPUID");
  return kj::heapArray(kj::arrayPtr(list.entries, kj::min(list.nent, MOST_ENTRIES)));
}

kj::Array<kvm_cpuid_entry2> planCpuid(kj::ArrayPtr<const kvm_cpuid_entry2> supported,
                                      const CpuidPlan& plan) {
  bool amd = isAmd(supported);
  kj::Vector<kvm_cpuid_entry2> entries;
  for (auto& e : supported) {
    if (e.function == LEAF_TOPOLOGY || e.function == LEAF_TOPOLOGY_V2) continue;
    if (e.function == LEAF_TIMING) continue;
    planEntry(entries.add(e), plan, amd);
  }
  if (highestBasicLeaf(supported) >= LEAF_TOPOLOGY) {
    entries.add(topologyLevel(0, 0, 1, 1));                              // threads of a core
    entries.add(topologyLevel(1, coreBits(plan.vcpus), plan.vcpus, 2));  // cores of the package
    entries.add(topologyLevel(2, 0, 0, 0));
  }
  if (plan.tscKhz != 0) {
    kvm_cpuid_entry2& timing = entries.add();
    timing = kvm_cpuid_entry2{};
    timing.function = LEAF_TIMING;
    timing.eax = plan.tscKhz;
    timing.ebx = KVM_APIC_BUS_KHZ;
  }
  for (auto& feature : plan.masked)
    mask(entries, feature);
  return entries.releaseAsArray();
}

void setApicId(kj::ArrayPtr<kvm_cpuid_entry2> entries, uint32_t apicId) {
  for (auto& e : entries) {
    switch (e.function) {
      case LEAF_FEATURES:
        e.ebx = (e.ebx & 0x00ffffff) | apicId << 24;
        break;
      case LEAF_TOPOLOGY:
        e.edx = apicId;
        break;
      case LEAF_TOPOLOGY_AMD:
        e.eax = apicId;
        e.ebx = (e.ebx & ~0xffu) | (apicId & 0xff);
        break;
    }
  }
}

}  // namespace troupe::broker
