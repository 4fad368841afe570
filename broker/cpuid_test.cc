#include "broker/cpuid.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>

namespace troupe::broker {
namespace {

kvm_cpuid_entry2 entry(uint32_t leaf, uint32_t subleaf, uint32_t eax, uint32_t ebx, uint32_t ecx,
                       uint32_t edx) {
  kvm_cpuid_entry2 e{};
  e.function = leaf;
  e.index = subleaf;
  e.eax = eax;
  e.ebx = ebx;
  e.ecx = ecx;
  e.edx = edx;
  return e;
}

uint32_t letters(const char* four) {
  uint32_t word;
  memcpy(&word, four, 4);
  return word;
}

// What an Intel host with 16 cores might offer.
kj::Array<kvm_cpuid_entry2> intelHost() {
  return kj::heapArray<kvm_cpuid_entry2>({
      entry(0, 0, 0x1f, letters("Genu"), letters("ntel"), letters("ineI")),
      entry(1, 0, 0x000806f8, 0x0b100800, 0xf6fa3203, 0x1f8bfbff),
      entry(4, 0, 0xfc004121, 0, 0, 0),  // L1
      entry(4, 3, 0xfc1fc163, 0, 0, 0),  // L3
      entry(4, 4, 0, 0, 0, 0),
      entry(7, 0, 2, 1 << 5, 0, 0),
      entry(0xa, 0, 0x08300805, 0, 0xf, 0x8603),
      entry(0xb, 0, 1, 2, 0x100, 0xb),
      entry(0x1f, 0, 1, 2, 0x100, 0xb),
      entry(0x40000000, 0, 0x40000001, letters("KVMK"), letters("VMKV"), letters("M\0\0")),
      entry(0x80000008, 0, 0x3934, 0, 0, 0),
  });
}

const kvm_cpuid_entry2& find(kj::ArrayPtr<const kvm_cpuid_entry2> entries, uint32_t leaf,
                             uint32_t subleaf = 0) {
  for (auto& e : entries) {
    if (e.function == leaf && e.index == subleaf) return e;
  }
  KJ_FAIL_REQUIRE("no such leaf", leaf, subleaf);
}

TEST(Cpuid, GivesEachVcpuItsApicId) {
  auto entries = planCpuid(intelHost(), {4, true, 0, nullptr});
  setApicId(entries, 3);
  EXPECT_EQ(find(entries, 1).ebx, 0x03040800u);  // id, logical processors, line size
  EXPECT_EQ(find(entries, 0xb, 0).edx, 3u);
  EXPECT_EQ(find(entries, 0xb, 1).edx, 3u);
}

TEST(Cpuid, DescribesOneThreadPerCoreInOnePackage) {
  auto entries = planCpuid(intelHost(), {3, true, 0, nullptr});
  EXPECT_EQ(find(entries, 0xb, 0).eax, 0u);
  EXPECT_EQ(find(entries, 0xb, 0).ebx, 1u);
  EXPECT_EQ(find(entries, 0xb, 0).ecx, 0x100u);
  EXPECT_EQ(find(entries, 0xb, 1).eax, 2u);  // two bits hold three cores
  EXPECT_EQ(find(entries, 0xb, 1).ebx, 3u);
  EXPECT_EQ(find(entries, 0xb, 1).ecx, 0x201u);
  EXPECT_EQ(find(entries, 4, 0).eax, 0x0c000121u);  // four core ids; L1 is shared by one
  EXPECT_EQ(find(entries, 4, 3).eax, 0x0c00c163u);  // L3 by all four ids
  EXPECT_EQ(find(entries, 4, 4).eax, 0u);
  EXPECT_NE(find(entries, 1).edx & 1u << 28, 0u);  // HTT
}

TEST(Cpuid, SaysNothingOfTheHostsTopology) {
  auto entries = planCpuid(intelHost(), {1, true, 0, nullptr});
  EXPECT_ANY_THROW(find(entries, 0x1f));
  EXPECT_EQ(find(entries, 1).edx & 1u << 28, 0u);
  EXPECT_EQ(find(entries, 0xb, 1).eax, 0u);
}

TEST(Cpuid, OffersTheDeadlineTimerWhenKvmHasItWhateverItsListSays) {
  constexpr uint32_t DEADLINE = 1 << 24;
  EXPECT_NE(find(planCpuid(intelHost(), {1, true, 0, nullptr}), 1).ecx & DEADLINE, 0u);
  EXPECT_EQ(find(planCpuid(intelHost(), {1, false, 0, nullptr}), 1).ecx & DEADLINE, 0u);
}

TEST(Cpuid, TellsTheTscFrequency) {
  auto entries = planCpuid(intelHost(), {1, true, 2300000, nullptr});
  EXPECT_EQ(find(entries, 0x40000000).eax, 0x40000010u);
  EXPECT_EQ(find(entries, 0x40000010).eax, 2300000u);
  EXPECT_EQ(find(entries, 0x40000010).ebx, 1000000u);
  EXPECT_ANY_THROW(find(planCpuid(intelHost(), {1, true, 0, nullptr}), 0x40000010));
}

TEST(Cpuid, HidesPerformanceCounters) {
  auto entries = planCpuid(intelHost(), {1, true, 0, nullptr});
  EXPECT_EQ(find(entries, 0xa).eax, 0u);
  EXPECT_EQ(find(entries, 1).ecx & 1u << 15, 0u);  // PDCM
}

TEST(Cpuid, HidesWhatIsMaskedEvenWhatWeAdd) {
  CpuFeature masked[] = {{7, 0, CpuidRegister::EBX, 5}, {1, 0, CpuidRegister::ECX, 31}};
  auto entries = planCpuid(intelHost(), {1, true, 0, masked});
  EXPECT_EQ(find(entries, 7).ebx, 0u);
  EXPECT_EQ(find(entries, 1).ecx & 1u << 31, 0u);
}

TEST(Cpuid, CountsCoresAsAmdDoes) {
  auto host = kj::heapArray<kvm_cpuid_entry2>({
      entry(0, 0, 0xd, letters("Auth"), letters("cAMD"), letters("enti")),
      entry(0x80000001, 0, 0, 0, 1 << 23, 0),
      entry(0x80000008, 0, 0x3028, 0, 0x700f, 0),
      entry(0x8000001d, 0, 0x0001c121, 0, 0, 0),
      entry(0x8000001d, 3, 0x0003c163, 0, 0, 0),
      entry(0x8000001e, 0, 9, 0x104, 0x101, 0),
  });
  auto entries = planCpuid(host, {2, true, 0, nullptr});
  setApicId(entries, 1);
  EXPECT_EQ(find(entries, 0x80000008).ecx, 0x1001u);
  EXPECT_EQ(find(entries, 0x80000001).ecx, 2u);  // CmpLegacy, and no counters
  EXPECT_EQ(find(entries, 0x8000001d, 0).eax, 0x121u);
  EXPECT_EQ(find(entries, 0x8000001d, 3).eax, 0x4163u);
  EXPECT_EQ(find(entries, 0x8000001e).eax, 1u);
  EXPECT_EQ(find(entries, 0x8000001e).ebx, 1u);
  EXPECT_EQ(find(entries, 0x8000001e).ecx, 0u);
}

}  // namespace
}  // namespace troupe::broker
