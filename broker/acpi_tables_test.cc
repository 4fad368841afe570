#include "broker/acpi_tables.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "broker/boot_layout.h"

namespace troupe::broker {
namespace {

const AcpiMachine MACHINE{2, 512 * MIB, 40};

uint8_t sum(const uint8_t* bytes, size_t size) {
  uint8_t total = 0;
  for (size_t i = 0; i < size; ++i)
    total += bytes[i];
  return total;
}

uint64_t number(const std::vector<uint8_t>& bytes, size_t offset, size_t size) {
  uint64_t value = 0;
  memcpy(&value, &bytes.at(offset), size);
  return value;
}

// Offset within the tables of the one that the XSDT names with `signature`.
size_t tableAt(const std::vector<uint8_t>& tables, const char* signature) {
  size_t xsdt = number(tables, 24, 8) - ACPI_TABLES_ADDRESS;
  size_t length = number(tables, xsdt + 4, 4);
  for (size_t entry = xsdt + 36; entry < xsdt + length; entry += 8) {
    size_t table = number(tables, entry, 8) - ACPI_TABLES_ADDRESS;
    if (memcmp(&tables.at(table), signature, 4) == 0) return table;
  }
  ADD_FAILURE() << "no " << signature;
  return 0;
}

TEST(AcpiTables, HaveAnRsdpWithBothChecksums) {
  auto tables = acpiTables(MACHINE);
  EXPECT_EQ(memcmp(tables.data(), "RSD PTR ", 8), 0);
  EXPECT_EQ(sum(tables.data(), 20), 0);
  EXPECT_EQ(sum(tables.data(), 36), 0);
  EXPECT_EQ(number(tables, 16, 4), 0u);  // no RSDT
}

TEST(AcpiTables, AreNamedByTheXsdtAndSumToZero) {
  auto tables = acpiTables(MACHINE);
  for (auto signature : {"FACP", "APIC", "MCFG"}) {
    size_t table = tableAt(tables, signature);
    EXPECT_EQ(sum(&tables.at(table), number(tables, table + 4, 4)), 0) << signature;
  }
}

TEST(AcpiTables, SayThatThePlatformIsHardwareReduced) {
  auto tables = acpiTables(MACHINE);
  size_t fadt = tableAt(tables, "FACP");
  EXPECT_EQ(number(tables, fadt + 4, 4), 276u);
  EXPECT_NE(number(tables, fadt + 112, 4) & 1 << 20, 0u);
  EXPECT_EQ(number(tables, fadt + 120, 8), 0x602u);  // reset register
  EXPECT_EQ(number(tables, fadt + 248, 8), 0x600u);  // sleep control
  EXPECT_EQ(number(tables, fadt + 260, 8), 0x601u);  // sleep status
  size_t dsdtAt = number(tables, fadt + 140, 8) - ACPI_TABLES_ADDRESS;
  EXPECT_EQ(memcmp(&tables.at(dsdtAt), "DSDT", 4), 0);
}

TEST(AcpiTables, ListEveryProcessor) {
  auto tables = acpiTables({255, 512 * MIB, 40});
  size_t madt = tableAt(tables, "APIC");
  EXPECT_EQ(number(tables, madt + 40, 4), 0u);  // no PIC
  size_t processors = 0;
  for (size_t at = madt + 44; at < madt + number(tables, madt + 4, 4); at += tables.at(at + 1)) {
    if (tables.at(at) != 0) continue;
    EXPECT_EQ(tables.at(at + 3), processors++);
  }
  EXPECT_EQ(processors, 255u);
}

TEST(AcpiTables, GiveEcamInMcfg) {
  auto tables = acpiTables(MACHINE);
  size_t mcfg = tableAt(tables, "MCFG");
  EXPECT_EQ(number(tables, mcfg + 44, 8), ECAM_START);
  EXPECT_EQ(tables.at(mcfg + 55), 255);
}

// The DSDT, read back by the reference disassembler.
class Disassembled: public ::testing::Test {
 protected:
  void SetUp() override {
    if (system("command -v iasl >/dev/null 2>&1") != 0) {
      GTEST_SKIP() << "no iasl (package acpica-tools)";
    }
    std::string base = ::testing::TempDir() + "/dsdt" + std::to_string(getpid());
    auto table = dsdt({2, 6 * GIB, 40});
    std::ofstream(base + ".aml", std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()), table.size());
    ASSERT_EQ(system(("iasl -d " + base + ".aml >" + base + ".log 2>&1").c_str()), 0);
    // It takes what it wrote back, so the table is one a compiler could have made.
    compileResult =
        system(("iasl -ve -p " + base + "2 " + base + ".dsl >" + base + ".log").c_str());
    std::ifstream file(base + ".dsl");
    text.assign(std::istreambuf_iterator<char>(file), {});
  }

  bool has(const std::string& part) const { return text.find(part) != std::string::npos; }

  int compileResult = -1;
  std::string text;
};

TEST_F(Disassembled, DsdtCompilesAgain) {
  EXPECT_EQ(compileResult, 0);
}

TEST_F(Disassembled, DsdtDescribesTheMachine) {
  EXPECT_TRUE(has("EisaId (\"PNP0A08\")"));
  EXPECT_TRUE(has("EisaId (\"PNP0501\")"));
  EXPECT_TRUE(has("EisaId (\"PNP0C02\")"));
  EXPECT_TRUE(has("EisaId (\"PNP0C0C\")"));
  EXPECT_TRUE(has("\"ACPI0013\""));
  EXPECT_TRUE(has("Name (\\_S5, Package"));
  EXPECT_TRUE(has("Notify (\\_SB.PWRB, 0x80)"));
  EXPECT_TRUE(has("0xDFFFFFFF,         // Range Maximum"));
  EXPECT_TRUE(has("0x0000000180000000, // Range Minimum"));  // above RAM
}

}  // namespace
}  // namespace troupe::broker
