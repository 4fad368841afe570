#include "guest/payload/clock.h"

#include "guest/payload/interrupts.h"
#include "guest/payload/machine.h"
#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr uint32_t HYPERVISOR = 0x40000000;
constexpr uint32_t KVM_CLOCKSOURCE2 = 1 << 3;
constexpr uint32_t MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01;
constexpr uint32_t PM_TIMER_HZ = 3579545;  // ACPI 6.4, §4.8.3.3

bool runsOnKvm() {
  Cpuid leaf = cpuid(HYPERVISOR);
  constexpr uint32_t KVMK = 0x4b4d564b, VMKV = 0x564b4d56, M = 0x4d;
  return (cpuid(1).ecx >> 31) && leaf.ebx == KVMK && leaf.ecx == VMKV && leaf.edx == M;
}

uint64_t fromCrystal() {
  if (cpuid(0).eax < 0x15) {
    return 0;
  }
  Cpuid leaf = cpuid(0x15);
  return leaf.eax ? static_cast<uint64_t>(leaf.ecx) * leaf.ebx / leaf.eax : 0;
}

uint64_t fromTimingLeaf() {
  bool hypervisor = cpuid(1).ecx >> 31;
  bool known = hypervisor && cpuid(HYPERVISOR).eax >= HYPERVISOR + 0x10;
  return known ? cpuid(HYPERVISOR + 0x10).eax * 1000ull : 0;
}

// KVM's clock page tells how it makes nanoseconds out of the counter.
uint64_t fromKvmClock() {
  if (!runsOnKvm() || !(cpuid(HYPERVISOR + 1).eax & KVM_CLOCKSOURCE2)) {
    return 0;
  }
  auto page = static_cast<volatile uint8_t*>(allocate(4096));
  if (!page) {
    return 0;
  }
  auto address = reinterpret_cast<uint64_t>(page);
  writeMsr(MSR_KVM_SYSTEM_TIME_NEW, address | 1);
  auto multiplier = readRegister<uint32_t>(address + 24);
  auto shift = static_cast<int8_t>(readRegister<uint8_t>(address + 28));
  writeMsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
  if (!multiplier) {
    return 0;
  }
  uint64_t hz = (1000'000'000ull << 32) / multiplier;
  return shift < 0 ? hz << -shift : hz >> shift;
}

uint64_t fromPmTimer(const Acpi& acpi) {
  if (!acpi.pmTimer || acpi.pmTimer.space != AcpiRegister::PORT) {
    return 0;
  }
  constexpr uint32_t TICKS = PM_TIMER_HZ / 50;  // 20 ms
  auto ticks = [&] { return inLong(acpi.pmTimer.address); };
  uint32_t startTicks = ticks();
  uint64_t start = readTsc();
  uint32_t passed = 0;
  while (passed < TICKS) {
    passed = (ticks() - startTicks) & 0xffffff;
    if (readTsc() - start > 10'000'000'000) {
      return 0;  // it stands still
    }
  }
  return (readTsc() - start) * PM_TIMER_HZ / passed;
}

}  // namespace

TscRate tscRate(const Acpi& acpi) {
  if (uint64_t hz = fromCrystal()) {
    return {hz, "cpuid-15"};
  }
  if (uint64_t hz = fromTimingLeaf()) {
    return {hz, "cpuid-40000010"};
  }
  if (uint64_t hz = fromKvmClock()) {
    return {hz, "kvmclock"};
  }
  if (uint64_t hz = fromPmTimer(acpi)) {
    return {hz, "pm-timer"};
  }
  return {0, "unknown"};
}

}  // namespace payload
