#pragma once

#include <stdint.h>

#include "guest/payload/acpi.h"

// Interrupts and the few services of ring 0. Ring 3 runs with interrupts off: they are taken only
// while waitForInterrupt() sleeps.
namespace payload {

constexpr uint8_t MESSAGE_VECTOR = 0x40;
constexpr uint8_t LEVEL_VECTOR = 0x41;
// Of a higher class, so that a level-triggered interrupt nobody ended does not hold it up.
constexpr uint8_t TIMER_VECTOR = 0x50;

// The message of an MSI that ends waitForInterrupt().
struct Message {
  uint64_t address;
  uint32_t data;
};

enum class Wake { TIMER, DEVICE };

// Fills the interrupt table; exceptions are reported from here on.
void initGates();

// Turns the local APIC on, its pins masked. False when there is none.
bool initLocalApic(const Acpi& acpi);

// Routes every I/O APIC pin a PCI interrupt may come by to LEVEL_VECTOR, level-triggered.
// False when there is no I/O APIC.
bool routeLevelInterrupts(const Acpi& acpi);

Message interruptMessage();

// A periodic wake-up, in nanoseconds of the local APIC's clock as hypervisors make it; 0 stops it.
void setTimer(uint32_t periodNs);

// Sleeps in ring 0 until an interrupt; one that came before ends it at once. After a
// level-triggered one the caller quiets the device and calls endLevelInterrupt().
Wake waitForInterrupt();
void endLevelInterrupt();

void writeMsr(uint32_t msr, uint64_t value);

[[noreturn]] void haltForever();
[[noreturn]] void crash();  // by a triple fault

}  // namespace payload
