#pragma once

#include <kj/function.h>

#include <atomic>
#include <cstdint>

#include "broker/bus.h"
#include "broker/interrupts.h"
#include "broker/memory_map.h"

namespace troupe::broker {

// Byte registers from ACPI_PORT on.
constexpr uint16_t ACPI_SLEEP_CONTROL = 0;  // ACPI 6.5, §4.8.3.7
constexpr uint16_t ACPI_SLEEP_STATUS = 1;
constexpr uint16_t ACPI_RESET = 2;
constexpr uint16_t ACPI_POWER_BUTTON = 3;  // ours: 1 once after each press
constexpr uint16_t ACPI_PORT_COUNT = 4;

constexpr uint8_t ACPI_RESET_VALUE = 1;
constexpr uint8_t ACPI_SLEEP_TYPE_OFF = 5;  // SLP_TYP of \_S5

// Told, on a vCPU thread, that the guest switched itself off or reset itself.
using GuestRequest = kj::Function<void()>;

// Sleep, reset and power button registers of a hardware-reduced ACPI platform. Any thread.
class AcpiPorts final: public BusDevice {
 public:
  AcpiPorts(Interrupts& interrupts, GuestRequest off, GuestRequest reset);

  // Presses the power button: one interrupt on ACPI_GSI.
  void pressPowerButton();

  // Forgets a press that nobody has read.
  void powerOn() { pressed = false; }

  void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override;
  void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) override;

 private:
  Interrupts& interrupts;
  GuestRequest off;
  GuestRequest reset;
  std::atomic<bool> pressed{false};
};

// What is left of a PC's keyboard controller: the command that pulls the reset line. Reads say that
// it is there and idle, so that no driver waits for it. Any thread.
class ResetPort final: public BusDevice {
 public:
  explicit ResetPort(GuestRequest reset);

  void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override;
  void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) override;

 private:
  GuestRequest reset;
};

}  // namespace troupe::broker
