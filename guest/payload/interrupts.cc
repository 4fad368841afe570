#include "guest/payload/interrupts.h"

#include "guest/payload/machine.h"
#include "guest/payload/memory.h"
#include "guest/payload/serial.h"

extern "C" {
struct Gate {
  uint16_t offsetLow;
  uint16_t selector;
  uint8_t stack;
  uint8_t type;
  uint16_t offsetMiddle;
  uint32_t offsetHigh;
  uint32_t reserved;
};
extern Gate idt[256];
extern char exceptionStubs[], waitGate[], wrmsrGate[], haltGate[];
extern char messageInterrupt[], levelInterrupt[], timerInterrupt[];

uint32_t timerTicks;

[[noreturn]] void faulted(uint64_t vector, uint64_t error, uint64_t rip, uint64_t cr2) {
  payload::print("\npayload: exception ", vector, " error ", payload::Hex{error}, " rip ",
                 payload::Hex{rip}, " cr2 ", payload::Hex{cr2}, "\n");
  payload::crash();
}
}

namespace payload {
namespace {

constexpr uint8_t BREAKPOINT = 3;  // raised by int3

constexpr uint16_t RING0_CODE = 0x08;
constexpr uint8_t INTERRUPT_GATE = 0x8e;
constexpr uint8_t RING3_MAY_CALL = 0x60;
constexpr unsigned STUB_SIZE = 16;

// Local APIC registers (Intel SDM 3A, table 11-1).
constexpr unsigned APIC_ID = 0x20;
constexpr unsigned APIC_VERSION = 0x30;
constexpr unsigned APIC_TPR = 0x80;
constexpr unsigned APIC_EOI = 0xb0;
constexpr unsigned APIC_SVR = 0xf0;
constexpr unsigned APIC_LVT_TIMER = 0x320;
constexpr unsigned APIC_LVT_LINT0 = 0x350;
constexpr unsigned APIC_LVT_LINT1 = 0x360;
constexpr unsigned APIC_TIMER_INITIAL = 0x380;
constexpr unsigned APIC_TIMER_DIVIDE = 0x3e0;
constexpr uint32_t LVT_MASKED = 1 << 16;
constexpr uint32_t LVT_PERIODIC = 1 << 17;
constexpr uint32_t SVR_ENABLED = 1 << 8;
constexpr uint32_t DIVIDE_BY_1 = 0xb;

// I/O APIC (82093AA).
constexpr unsigned IOAPIC_WINDOW = 0x10;
constexpr uint8_t IOAPIC_VERSION = 1;
constexpr uint8_t IOAPIC_REDIRECTION = 0x10;
constexpr uint32_t REDIRECTION_LEVEL = 1 << 15;

uint64_t localApic = 0xfee00000;

void setGate(uint8_t vector, const char* handler, uint8_t type) {
  auto address = reinterpret_cast<uint64_t>(handler);
  idt[vector] = {static_cast<uint16_t>(address),
                 RING0_CODE,
                 0,
                 type,
                 static_cast<uint16_t>(address >> 16),
                 static_cast<uint32_t>(address >> 32),
                 0};
}

// Where int3 leads from now on; waitGate except for a moment.
void setBreakpoint(const char* gate) {
  setGate(BREAKPOINT, gate, INTERRUPT_GATE | RING3_MAY_CALL);
}

uint32_t ioApicRead(uint64_t ioApic, uint8_t index) {
  writeRegister<uint32_t>(ioApic, index);
  return readRegister<uint32_t>(ioApic + IOAPIC_WINDOW);
}

void ioApicWrite(uint64_t ioApic, uint8_t index, uint32_t value) {
  writeRegister<uint32_t>(ioApic, index);
  writeRegister<uint32_t>(ioApic + IOAPIC_WINDOW, value);
}

uint32_t apicId() {
  return readRegister<uint32_t>(localApic + APIC_ID) >> 24;
}

// Pins of the PC's own devices on the first I/O APIC; PCI uses the others.
bool isLegacyPin(unsigned pin) {
  return pin < 5 || pin == 8 || pin == 9;
}

void routePins(uint64_t ioApic, bool first) {
  mapThrough(ioApic, 4096);
  unsigned pins = (ioApicRead(ioApic, IOAPIC_VERSION) >> 16 & 0xff) + 1;
  for (unsigned pin = 0; pin < pins; ++pin) {
    if (first && isLegacyPin(pin)) {
      continue;
    }
    ioApicWrite(ioApic, IOAPIC_REDIRECTION + 2 * pin + 1, apicId() << 24);
    ioApicWrite(ioApic, IOAPIC_REDIRECTION + 2 * pin, LEVEL_VECTOR | REDIRECTION_LEVEL);
  }
}

}  // namespace

void initGates() {
  for (unsigned vector = 0; vector < 32; ++vector) {
    setGate(vector, exceptionStubs + STUB_SIZE * vector, INTERRUPT_GATE);
  }
  for (unsigned vector = 32; vector < 256; ++vector) {
    setGate(vector, levelInterrupt, INTERRUPT_GATE);
  }
  setGate(MESSAGE_VECTOR, messageInterrupt, INTERRUPT_GATE);
  setGate(TIMER_VECTOR, timerInterrupt, INTERRUPT_GATE);
  setBreakpoint(waitGate);
}

bool initLocalApic(const Acpi& acpi) {
  localApic = acpi.localApic;
  mapThrough(localApic, 4096);
  if (readRegister<uint32_t>(localApic + APIC_VERSION) == ~0u) {
    return false;
  }
  // LINT0 carries the old interrupt controller, whose timer firmware may have left running.
  writeRegister<uint32_t>(localApic + APIC_LVT_LINT0, LVT_MASKED);
  writeRegister<uint32_t>(localApic + APIC_LVT_LINT1, LVT_MASKED);
  writeRegister<uint32_t>(localApic + APIC_TPR, 0);
  writeRegister<uint32_t>(localApic + APIC_SVR, SVR_ENABLED | 0xff);
  return true;
}

bool routeLevelInterrupts(const Acpi& acpi) {
  for (unsigned i = 0; i < acpi.ioApicCount; ++i) {
    routePins(acpi.ioApics[i], i == 0);
  }
  return acpi.ioApicCount > 0;
}

Message interruptMessage() {
  return {0xfee00000 | static_cast<uint64_t>(apicId()) << 12, MESSAGE_VECTOR};
}

void setTimer(uint32_t periodNs) {
  writeRegister<uint32_t>(localApic + APIC_TIMER_DIVIDE, DIVIDE_BY_1);
  writeRegister<uint32_t>(localApic + APIC_LVT_TIMER,
                          periodNs ? TIMER_VECTOR | LVT_PERIODIC : LVT_MASKED);
  writeRegister<uint32_t>(localApic + APIC_TIMER_INITIAL, periodNs);
}

Wake waitForInterrupt() {
  uint32_t ticksBefore = timerTicks;
  asm volatile("int3" : : "D"(localApic + APIC_EOI) : "memory");
  return timerTicks != ticksBefore ? Wake::TIMER : Wake::DEVICE;
}

void endLevelInterrupt() {
  writeRegister<uint32_t>(localApic + APIC_EOI, 0);
}

void writeMsr(uint32_t msr, uint64_t value) {
  setBreakpoint(wrmsrGate);
  asm volatile("int3"
               :
               : "c"(msr), "a"(static_cast<uint32_t>(value)),
                 "d"(static_cast<uint32_t>(value >> 32))
               : "memory");
  setBreakpoint(waitGate);
}

void haltForever() {
  setBreakpoint(haltGate);
  for (;;) {
    asm volatile("int3" : : : "memory");
  }
}

void crash() {
  memset(idt, 0, sizeof(idt));
  for (;;) {
    asm volatile("ud2" : : : "memory");
  }
}

}  // namespace payload
