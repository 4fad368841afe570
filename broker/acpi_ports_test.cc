#include "broker/acpi_ports.h"

#include <gtest/gtest.h>

#include "broker/pci_fakes.h"

namespace troupe::broker {
namespace {

struct Bench {
  Bench()
      : ports(
            interrupts, [this]() { ++offs; }, [this]() { ++resets; }) {}

  void write(uint64_t offset, uint8_t value) { ports.busWrite(offset, kj::arrayPtr(&value, 1)); }
  uint8_t read(uint64_t offset) {
    uint8_t value = 0xaa;
    ports.busRead(offset, kj::arrayPtr(&value, 1));
    return value;
  }

  FakeInterrupts interrupts;
  int offs = 0;
  int resets = 0;
  AcpiPorts ports;
};

TEST(AcpiPorts, SwitchOffAtS5WithSleepEnable) {
  Bench bench;
  bench.write(ACPI_SLEEP_CONTROL, 5 << 2);           // no enable
  bench.write(ACPI_SLEEP_CONTROL, 3 << 2 | 1 << 5);  // S3
  EXPECT_EQ(bench.offs, 0);
  bench.write(ACPI_SLEEP_CONTROL, 5 << 2 | 1 << 5);
  EXPECT_EQ(bench.offs, 1);
  EXPECT_EQ(bench.resets, 0);
}

TEST(AcpiPorts, ResetOnlyAtTheValueTheFadtNames) {
  Bench bench;
  bench.write(ACPI_RESET, 0);
  bench.write(ACPI_RESET, 0xff);
  EXPECT_EQ(bench.resets, 0);
  bench.write(ACPI_RESET, ACPI_RESET_VALUE);
  EXPECT_EQ(bench.resets, 1);
}

TEST(AcpiPorts, GiveOneEdgeAndOneReadPerPress) {
  Bench bench;
  EXPECT_EQ(bench.read(ACPI_POWER_BUTTON), 0);
  bench.ports.pressPowerButton();
  EXPECT_EQ(bench.interrupts.lineChanges, 2u);
  EXPECT_FALSE(bench.interrupts.lines[ACPI_GSI]);
  EXPECT_EQ(bench.read(ACPI_POWER_BUTTON), 1);
  EXPECT_EQ(bench.read(ACPI_POWER_BUTTON), 0);
}

TEST(ResetPort, ResetsAtItsCommandOnlyAndLooksIdle) {
  int resets = 0;
  ResetPort port([&resets]() { ++resets; });
  kj::byte value = 0xaa;
  port.busRead(0, kj::arrayPtr(&value, 1));
  EXPECT_EQ(value, 0);
  for (kj::byte command : {0x20, 0xd1, 0xaa})
    port.busWrite(0, kj::arrayPtr(&command, 1));
  EXPECT_EQ(resets, 0);
  kj::byte pulse = 0xfe;
  port.busWrite(0, kj::arrayPtr(&pulse, 1));
  EXPECT_EQ(resets, 1);
}

}  // namespace
}  // namespace troupe::broker
