#include "broker/acpi_ports.h"

#include <cstring>

namespace troupe::broker {
namespace {

// Sleep control register (§4.8.3.7).
constexpr uint8_t SLEEP_ENABLE = 1 << 5;
constexpr uint8_t SLEEP_TYPE_SHIFT = 2;
constexpr uint8_t SLEEP_TYPE_MASK = 7;

constexpr uint8_t PULSE_RESET = 0xfe;  // i8042 command

}  // namespace

AcpiPorts::AcpiPorts(Interrupts& interrupts, GuestRequest off, GuestRequest reset)
    : interrupts(interrupts), off(kj::mv(off)), reset(kj::mv(reset)) {}

void AcpiPorts::pressPowerButton() {
  pressed = true;
  // The pin is wired for rising edges.
  interrupts.setLine(ACPI_GSI, true);
  interrupts.setLine(ACPI_GSI, false);
}

void AcpiPorts::busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) {
  memset(data.begin(), 0, data.size());
  for (size_t i = 0; i < data.size(); ++i) {
    if (offset + i == ACPI_POWER_BUTTON) data[i] = pressed.exchange(false);
  }
}

void AcpiPorts::busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) {
  for (size_t i = 0; i < data.size(); ++i) {
    uint8_t value = data[i];
    if (offset + i == ACPI_SLEEP_CONTROL) {
      bool isOff = (value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK) == ACPI_SLEEP_TYPE_OFF;
      if ((value & SLEEP_ENABLE) && isOff) off();
    } else if (offset + i == ACPI_RESET) {
      if (value == ACPI_RESET_VALUE) reset();
    }
  }
}

ResetPort::ResetPort(GuestRequest reset) : reset(kj::mv(reset)) {}

void ResetPort::busRead(uint64_t, kj::ArrayPtr<kj::byte> data) {
  memset(data.begin(), 0, data.size());
}

void ResetPort::busWrite(uint64_t, kj::ArrayPtr<const kj::byte> data) {
  if (data[0] == PULSE_RESET) reset();
}

}  // namespace troupe::broker
