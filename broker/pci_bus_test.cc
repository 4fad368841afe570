#include "broker/pci_bus.h"

#include <gtest/gtest.h>

#include "broker/virtio_pci_bench.h"

namespace troupe::broker {
namespace {

constexpr uint64_t ONES[] = {0, 0xff, 0xffff, 0, 0xffffffff, 0, 0, 0, ~uint64_t(0)};

// Answers with its own offsets and notes the last write.
class ProbeFunction final: public PciFunction {
 public:
  void configRead(uint32_t offset, kj::ArrayPtr<kj::byte> data) override {
    for (auto& byte : data)
      byte = offset++ / 4 & 0x7f;  // never ones
  }
  void configWrite(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override {
    writtenOffset = offset;
    writtenSize = data.size();
  }
  uint32_t writtenOffset = ~0u;
  size_t writtenSize = 0;
};

struct PciBusTest: public testing::Test, public PciMachine {
  PciBusTest() { pci.add(probe); }
  void select(uint32_t bus, uint32_t slot, uint32_t function, uint32_t reg) {
    write(pio, 0xcf8, 0x80000000 | bus << 16 | slot << 11 | function << 8 | reg, 4);
  }
  ProbeFunction probe;
};

TEST_F(PciBusTest, PCI08BusesOtherThan0AnswerOnesAtEveryWidthThroughBothMechanisms) {
  for (uint32_t bus = 0; bus < 256; ++bus) {
    for (uint32_t slot : {0, 1, 2, 31}) {
      for (uint32_t function : {0, 1, 7}) {
        bool isThere = bus == 0 && slot <= 1 && function == 0;
        uint64_t address = ECAM_START + (bus << 20 | slot << 15 | function << 12);
        select(bus, slot, function, 0);
        for (size_t width : {1, 2, 4, 8}) {
          EXPECT_EQ(read(mmio, address, width) != ONES[width], isThere);
          EXPECT_EQ(read(pio, 0xcfc, width) != ONES[width], isThere && width < 8);
        }
        if (isThere) continue;
        write(mmio, address + 4, ~0u, 4);
        write(pio, 0xcfc, ~0u, 4);
        EXPECT_EQ(probe.writtenSize, 0);
      }
    }
  }
}

TEST_F(PciBusTest, PCI08AccessesEndWithTheFunctionsConfigurationSpace) {
  for (size_t width : {1, 2, 4, 8}) {
    for (uint32_t offset = 4080; offset < 4096; ++offset) {
      bool isInside = offset + width <= 4096;
      EXPECT_EQ(config(1, offset, width) != ONES[width], isInside);
      probe.writtenSize = 0;
      setConfig(1, offset, 0, width);
      EXPECT_EQ(probe.writtenSize, isInside ? width : 0);
    }
  }
  // The last bytes of the last bus.
  EXPECT_EQ(read(mmio, ECAM_START + ECAM_SIZE - 4, 4), ONES[4]);
  EXPECT_EQ(read(mmio, ECAM_START + ECAM_SIZE - 2, 4), ONES[4]);
}

TEST_F(PciBusTest, PCI08CfcReachesEachByteOfTheSelectedRegister) {
  select(0, 1, 0, 0x40);
  for (uint32_t byte = 0; byte < 4; ++byte) {
    for (size_t width : {1, 2, 4}) {
      bool isInside = byte + width <= 4;
      EXPECT_EQ(read(pio, 0xcfc + byte, width), isInside ? 0x10101010 & ONES[width] : ONES[width]);
      probe.writtenSize = 0;
      write(pio, 0xcfc + byte, 0, width);
      EXPECT_EQ(probe.writtenSize, isInside ? width : 0);
      EXPECT_TRUE(!isInside || probe.writtenOffset == 0x40 + byte);
    }
  }
}

TEST_F(PciBusTest, Cf8IsARegisterOf32BitsAndNothingNarrower) {
  select(0, 1, 0, 0x43);  // the two low bits are reserved
  EXPECT_EQ(read(pio, 0xcf8, 4), 0x80000840);
  write(pio, 0xcf8, 0, 1);
  write(pio, 0xcf9, 0x06, 1);
  write(pio, 0xcf8, 0, 2);
  EXPECT_EQ(read(pio, 0xcf8, 4), 0x80000840);
  EXPECT_EQ(read(pio, 0xcf8, 2), ONES[2]);
  write(pio, 0xcf8, 0x840, 4);  // without the enable bit
  EXPECT_EQ(read(pio, 0xcfc, 4), ONES[4]);
}

TEST_F(PciBusTest, TheHostBridgeCannotBeChanged) {
  EXPECT_EQ(config(0, 0, 4), 0x00081b36);
  EXPECT_EQ(config(0, 8, 4), 0x06000000);
  for (uint32_t reg = 0; reg < 4096; reg += 4) {
    uint64_t before = config(0, reg, 4);
    setConfig(0, reg, ~0u, 4);
    EXPECT_EQ(config(0, reg, 4), before);
  }
}

TEST_F(PciBusTest, The32ndDeviceIsRefusedWithACode) {
  ProbeFunction more[30];
  for (uint8_t i = 0; i < 30; ++i)
    EXPECT_EQ(pci.add(more[i]), i + 2);
  ProbeFunction tooMany;
  try {
    pci.add(tooMany);
    FAIL();
  } catch (const kj::Exception& e) {
    EXPECT_TRUE(e.getDescription().startsWith("TRP-pci-001: ")) << e.getDescription().cStr();
  }
}

TEST_F(PciBusTest, BarsAreAlignedAndWithinTheWindow) {
  EXPECT_EQ(pci.allocateMmio(0x1000), MMIO32_START);
  EXPECT_EQ(pci.allocateMmio(0x8000), MMIO32_START + 0x8000);
  EXPECT_ANY_THROW(pci.allocateMmio(0x40000000));
}

TEST(IntxLines, APinIsHighWhileAnySlotAssertsIt) {
  FakeInterrupts interrupts;
  IntxLines lines(interrupts);
  uint32_t gsi = PciBus::intxGsi(1);
  EXPECT_EQ(PciBus::intxGsi(9), gsi);  // shares it
  lines.set(gsi, 1, true);
  lines.set(gsi, 9, true);
  lines.set(gsi, 9, true);
  lines.set(gsi, 1, false);
  EXPECT_TRUE(interrupts.lines[gsi]);
  lines.set(gsi, 9, false);
  EXPECT_FALSE(interrupts.lines[gsi]);
  EXPECT_EQ(interrupts.lineChanges, 2);
}

}  // namespace
}  // namespace troupe::broker
