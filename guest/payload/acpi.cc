#include "guest/payload/acpi.h"

#include "guest/payload/aml.h"
#include "guest/payload/machine.h"
#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr unsigned HEADER_SIZE = 36;  // §5.2.6
constexpr uint32_t MAX_TABLE_SIZE = 1 << 20;

constexpr uint32_t FADT_RESET_REG_SUP = 1 << 10;
constexpr uint32_t FADT_HW_REDUCED_ACPI = 1 << 20;

constexpr uint8_t SLP_EN = 1 << 5;         // §4.8.3.7
constexpr uint16_t PM1_SLP_EN = 1 << 13;   // §4.8.3.2.1
constexpr uint16_t PM1_SLP_MASK = 0x3c00;  // SLP_TYP and SLP_EN

// One table, mapped and with its checksum seen.
struct Table {
  const uint8_t* bytes;
  uint32_t length;

  template <typename T>
  T at(unsigned offset) const {
    return offset + sizeof(T) <= length ? load<T>(bytes + offset) : T{};
  }
  bool is(const char* signature) const { return memcmp(bytes, signature, 4) == 0; }
  bool checksumGood() const {
    uint8_t sum = 0;
    for (uint32_t i = 0; i < length; ++i) {
      sum += bytes[i];
    }
    return sum == 0;
  }
  // A generic address structure (§5.2.3.2).
  AcpiRegister generic(unsigned offset) const {
    return {at<uint8_t>(offset), at<uint64_t>(offset + 4)};
  }
};

Table tableAt(uint64_t address) {
  auto bytes = static_cast<const uint8_t*>(mapThrough(address, MAX_TABLE_SIZE));
  auto length = load<uint32_t>(bytes + 4);
  return {bytes, length < HEADER_SIZE || length > MAX_TABLE_SIZE ? HEADER_SIZE : length};
}

const uint8_t* findRsdp(uint64_t given) {
  if (given) {
    return static_cast<const uint8_t*>(mapThrough(given, HEADER_SIZE));
  }
  for (uint64_t address = 0xe0000; address < 0x100000; address += 16) {  // §5.2.5.1
    auto candidate = reinterpret_cast<const uint8_t*>(address);
    if (memcmp(candidate, "RSD PTR ", 8) == 0) {
      return candidate;
    }
  }
  return nullptr;
}

void readMcfg(const Table& mcfg, Acpi& acpi) {
  for (unsigned offset = 44; offset + 16 <= mcfg.length; offset += 16) {
    if (mcfg.at<uint16_t>(offset + 8) == 0) {
      acpi.ecam = mcfg.at<uint64_t>(offset);
      return;
    }
  }
}

void readMadt(const Table& madt, Acpi& acpi) {
  acpi.localApic = madt.at<uint32_t>(36);
  unsigned size;
  for (unsigned offset = 44; offset + 2 <= madt.length; offset += size) {
    size = madt.at<uint8_t>(offset + 1);
    if (size < 2) {
      return;
    }
    if (madt.at<uint8_t>(offset) == 1 && acpi.ioApicCount < MAX_IO_APICS) {
      acpi.ioApics[acpi.ioApicCount++] = madt.at<uint32_t>(offset + 4);
    }
  }
}

// The 64-bit field where there is one, else the port of the field it replaced.
AcpiRegister extended(const Table& fadt, unsigned newOffset, unsigned oldOffset) {
  AcpiRegister result = fadt.generic(newOffset);
  if (!result) {
    result = {AcpiRegister::PORT, fadt.at<uint32_t>(oldOffset)};
  }
  return result;
}

void readFadt(const Table& fadt, Acpi& acpi) {
  auto flags = fadt.at<uint32_t>(112);
  acpi.hardwareReduced = flags & FADT_HW_REDUCED_ACPI;
  if (acpi.hardwareReduced) {
    acpi.sleepControl = fadt.generic(244);
  } else {
    acpi.pm1aControl = extended(fadt, 172, 64);
    acpi.pmTimer = extended(fadt, 208, 76);
  }
  if (flags & FADT_RESET_REG_SUP) {
    acpi.reset = fadt.generic(116);
    acpi.resetValue = fadt.at<uint8_t>(128);
  }
  uint64_t address = fadt.at<uint64_t>(140);
  if (!address) {
    address = fadt.at<uint32_t>(40);
  }
  if (address) {
    Table dsdt = tableAt(address);
    acpi.checksumsGood &= dsdt.checksumGood();
    ++acpi.tableCount;
    const uint8_t* aml = dsdt.bytes + HEADER_SIZE;
    acpi.hasS5 = findS5(aml, dsdt.length - HEADER_SIZE, acpi.s5Type);
    acpi.configBase = findConfigBase(aml, dsdt.length - HEADER_SIZE);
  }
}

void readTable(const Table& table, Acpi& acpi) {
  ++acpi.tableCount;
  acpi.checksumsGood &= table.checksumGood();
  if (table.is("MCFG")) {
    readMcfg(table, acpi);
  } else if (table.is("APIC")) {
    readMadt(table, acpi);
  } else if (table.is("FACP")) {
    readFadt(table, acpi);
  }
}

void write8(AcpiRegister to, uint8_t value) {
  if (to.space == AcpiRegister::PORT) {
    outByte(to.address, value);
  } else {
    mapThrough(to.address, 1);
    writeRegister<uint8_t>(to.address, value);
  }
}

void writePm1(AcpiRegister to, uint8_t type) {
  uint16_t typeAndEnable = type << 10 | PM1_SLP_EN;
  if (to.space == AcpiRegister::PORT) {
    outShort(to.address, (inShort(to.address) & ~PM1_SLP_MASK) | typeAndEnable);
  } else {
    mapThrough(to.address, 2);
    uint16_t other = readRegister<uint16_t>(to.address) & ~PM1_SLP_MASK;
    writeRegister<uint16_t>(to.address, other | typeAndEnable);
  }
}

// Device emulation may act a moment after the write.
void waitAMoment() {
  uint64_t start = readTsc();
  while (readTsc() - start < 200'000'000) {
    pause();
  }
}

}  // namespace

Acpi readAcpi(const StartInfo& info) {
  Acpi acpi{};
  acpi.localApic = 0xfee00000;
  const uint8_t* rsdp = findRsdp(info.rsdp);
  if (!rsdp || memcmp(rsdp, "RSD PTR ", 8) != 0) {
    return acpi;
  }
  acpi.rsdpFound = true;
  acpi.checksumsGood = Table{rsdp, 20}.checksumGood();
  auto xsdt = rsdp[15] >= 2 ? load<uint64_t>(rsdp + 24) : 0;
  unsigned entrySize = xsdt ? 8 : 4;
  Table root = tableAt(xsdt ? xsdt : load<uint32_t>(rsdp + 16));
  acpi.checksumsGood &= root.checksumGood();
  for (unsigned offset = HEADER_SIZE; offset + entrySize <= root.length; offset += entrySize) {
    readTable(tableAt(xsdt ? root.at<uint64_t>(offset) : root.at<uint32_t>(offset)), acpi);
  }
  if (!acpi.ecam) {
    acpi.ecam = acpi.configBase;
  }
  return acpi;
}

void powerOff(const Acpi& acpi) {
  if (!acpi.hasS5) {
    return;
  }
  if (acpi.sleepControl) {
    write8(acpi.sleepControl, acpi.s5Type << 2 | SLP_EN);
  } else if (acpi.pm1aControl) {
    writePm1(acpi.pm1aControl, acpi.s5Type);
  }
  waitAMoment();
}

void reset(const Acpi& acpi) {
  if (acpi.reset) {
    write8(acpi.reset, acpi.resetValue);
    waitAMoment();
  }
  outByte(0x64, 0xfe);  // the keyboard controller's pulse on the reset line
  waitAMoment();
}

}  // namespace payload
