#include "broker/acpi_tables.h"

#include <kj/debug.h>

#include <cstring>
#include <string>

#include "broker/acpi_ports.h"
#include "broker/aml.h"
#include "broker/boot_layout.h"

namespace troupe::broker {
namespace {

using aml::Bytes;
using aml::join;

constexpr size_t HEADER_SIZE = 36;
constexpr size_t CHECKSUM_OFFSET = 9;
constexpr size_t FADT_SIZE = 276;
constexpr size_t RSDP_SIZE = 36;
constexpr size_t RSDP_V1_SIZE = 20;

constexpr uint8_t PCI_SLOTS = 32;
constexpr uint8_t PCI_PINS = 4;

// FADT flags and boot architecture (§5.2.9).
constexpr uint32_t RESET_REGISTER_SUPPORTED = 1 << 10;
constexpr uint32_t HARDWARE_REDUCED = 1 << 20;
constexpr uint16_t NO_VGA = 1 << 2;
constexpr uint16_t NO_CMOS_CLOCK = 1 << 5;

void put(Bytes& bytes, size_t offset, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i)
    bytes.at(offset + i) = uint8_t(value >> (8 * i));
}

void append(Bytes& bytes, uint64_t value, size_t size) {
  bytes.resize(bytes.size() + size);
  put(bytes, bytes.size() - size, value, size);
}

uint8_t checksum(const uint8_t* bytes, size_t size) {
  uint8_t sum = 0;
  for (size_t i = 0; i < size; ++i)
    sum += bytes[i];
  return uint8_t(-sum);
}

// A table of our own: `body` is what follows the header (§5.2.6).
Bytes table(const char (&signature)[5], uint8_t revision, const Bytes& body) {
  Bytes bytes(signature, signature + 4);
  append(bytes, HEADER_SIZE + body.size(), 4);
  bytes = join({bytes, {revision, 0}});
  const char ids[] = "TROUPETROUPEVM";  // OEM id (6), OEM table id (8)
  bytes.insert(bytes.end(), ids, ids + 14);
  append(bytes, 1, 4);
  const char creator[] = "TRPE";
  bytes.insert(bytes.end(), creator, creator + 4);
  append(bytes, 1, 4);
  bytes = join({bytes, body});
  bytes[CHECKSUM_OFFSET] = checksum(bytes.data(), bytes.size());
  return bytes;
}

// A Generic Address Structure (§5.2.3.2): one byte in I/O space.
void putIoRegister(Bytes& bytes, size_t offset, uint16_t port) {
  constexpr uint8_t SYSTEM_IO = 1;
  constexpr uint8_t BYTE_ACCESS = 1;
  put(bytes, offset, SYSTEM_IO, 1);
  put(bytes, offset + 1, 8, 1);
  put(bytes, offset + 3, BYTE_ACCESS, 1);
  put(bytes, offset + 4, port, 8);
}

// §5.2.9. Offsets are those of the specification, which count the header.
Bytes fadt(uint64_t dsdtAddress) {
  Bytes body(FADT_SIZE - HEADER_SIZE);
  auto at = [](size_t offset) { return offset - HEADER_SIZE; };
  put(body, at(40), dsdtAddress, 4);
  put(body, at(109), NO_VGA | NO_CMOS_CLOCK, 2);
  put(body, at(112), RESET_REGISTER_SUPPORTED | HARDWARE_REDUCED, 4);
  putIoRegister(body, at(116), ACPI_PORT + ACPI_RESET);
  put(body, at(128), ACPI_RESET_VALUE, 1);
  put(body, at(131), 5, 1);  // minor version
  put(body, at(140), dsdtAddress, 8);
  putIoRegister(body, at(244), ACPI_PORT + ACPI_SLEEP_CONTROL);
  putIoRegister(body, at(256), ACPI_PORT + ACPI_SLEEP_STATUS);
  memcpy(&body[at(268)], "TROUPE", 6);
  return table("FACP", 6, body);
}

// §5.2.12
Bytes madt(uint32_t vcpus) {
  constexpr uint32_t NO_LEGACY_PIC = 0;
  constexpr uint8_t ALL_PROCESSORS = 0xff;
  Bytes body;
  append(body, LAPIC_ADDRESS, 4);
  append(body, NO_LEGACY_PIC, 4);
  for (uint32_t id = 0; id < vcpus; ++id) {
    body = join({body, {0, 8, uint8_t(id), uint8_t(id)}});
    append(body, 1, 4);  // enabled
  }
  body = join({body, {1, 12, 0, 0}});  // I/O APIC 0
  append(body, IOAPIC_ADDRESS, 4);
  append(body, 0, 4);                                    // its first GSI
  body = join({body, {4, 6, ALL_PROCESSORS, 0, 0, 1}});  // NMI on LINT1
  return table("APIC", 5, body);
}

// PCI Firmware Specification 3.3, §4.1.2
Bytes mcfg() {
  Bytes body(8);
  append(body, ECAM_START, 8);
  append(body, 0, 2);  // segment
  body = join({body, {0, 255}});
  append(body, 0, 4);
  return table("MCFG", 1, body);
}

Bytes routing() {
  std::vector<Bytes> routes;
  for (uint32_t slot = 0; slot < PCI_SLOTS; ++slot) {
    for (uint32_t pin = 0; pin < PCI_PINS; ++pin) {
      uint32_t gsi = FIRST_INTX_GSI + (slot + pin) % INTX_GSI_COUNT;
      routes.push_back(aml::package({aml::integer(slot << 16 | 0xffff), aml::integer(pin),
                                     aml::integer(0), aml::integer(gsi)}));
    }
  }
  return aml::package(routes);
}

// The window for 64-bit BARs: above RAM, as far as the CPUs' addresses go.
std::vector<Bytes> window64(const AcpiMachine& machine) {
  constexpr uint64_t SIZE = 32 * GIB;
  uint64_t start = (kj::max(machine.ramEnd, HIGH_RAM_START) + GIB - 1) & ~(GIB - 1);
  uint64_t limit = 1ull << kj::min(machine.physicalAddressBits, uint8_t(52));
  if (start >= limit) return {};
  return {aml::memoryWindow(start, kj::min(SIZE, limit - start))};
}

Bytes pciRoot(const AcpiMachine& machine) {
  std::vector<Bytes> windows{
      aml::busNumbers(0, 255),
      aml::ioPorts(PCI_CONFIG_ADDRESS_PORT, 8),
      aml::memoryWindow(MMIO32_START, MMIO32_END - MMIO32_START),
  };
  for (auto& window : window64(machine))
    windows.push_back(window);
  return aml::device("PCI0", join({
                                 aml::name("_HID", aml::eisaId("PNP0A08")),
                                 aml::name("_CID", aml::eisaId("PNP0A03")),
                                 aml::name("_UID", aml::integer(0)),
                                 aml::name("_SEG", aml::integer(0)),
                                 aml::name("_BBN", aml::integer(0)),
                                 aml::name("_CRS", aml::resources(windows)),
                                 aml::name("_PRT", routing()),
                             }));
}

// Systems use ECAM only where it is reserved as a board's own resource.
Bytes ecamReservation() {
  return aml::device(
      "ECAM", join({
                  aml::name("_HID", aml::eisaId("PNP0C02")),
                  aml::name("_UID", aml::integer(1)),
                  aml::name("_CRS", aml::resources({aml::fixedMemory(ECAM_START, ECAM_SIZE)})),
              }));
}

// Without legacy interrupt controllers a system learns the serial port's interrupt only here.
Bytes serialPort() {
  return aml::device("COM1", join({
                                 aml::name("_HID", aml::eisaId("PNP0501")),
                                 aml::name("_UID", aml::integer(1)),
                                 aml::name("_CRS", aml::resources({
                                                       aml::ioPorts(SERIAL_PORT, 8),
                                                       aml::edgeInterrupt(SERIAL_GSI),
                                                   })),
                             }));
}

// pvpanic, by the name QEMU gave it.
Bytes panicPort() {
  return aml::device("PEVT", join({
                                 aml::name("_HID", aml::string("QEMU0001")),
                                 aml::name("_CRS", aml::resources({aml::ioPorts(PANIC_PORT, 1)})),
                             }));
}

// A hardware-reduced platform has no fixed power button: the button is a device of its own, and the
// Generic Event Device (§5.6.9) passes its interrupt on.
Bytes powerButton() {
  constexpr uint8_t PRESSED = 0x80;
  return join({
      aml::ioRegion("APRT", ACPI_PORT, ACPI_PORT_COUNT, {"SLPC", "SLPS", "RSTR", "PBTN"}),
      aml::device("PWRB", join({
                              aml::name("_HID", aml::eisaId("PNP0C0C")),
                              aml::name("_UID", aml::integer(0)),
                          })),
      aml::device("GED0", join({
                              aml::name("_HID", aml::string("ACPI0013")),
                              aml::name("_UID", aml::integer(0)),
                              aml::name("_CRS", aml::resources({aml::edgeInterrupt(ACPI_GSI)})),
                              // Reading the register takes the press out of it.
                              aml::method("_EVT", 1,
                                          aml::ifNotZero(aml::path("PBTN"),
                                                         aml::notify("\\_SB.PWRB", PRESSED))),
                          })),
  });
}

}  // namespace

std::vector<uint8_t> dsdt(const AcpiMachine& machine) {
  Bytes off = aml::package({aml::integer(ACPI_SLEEP_TYPE_OFF), aml::integer(ACPI_SLEEP_TYPE_OFF),
                            aml::integer(0), aml::integer(0)});
  Bytes body = join({
      aml::name("\\_S5", off),
      aml::scope("\\_SB", join({
                              pciRoot(machine),
                              ecamReservation(),
                              serialPort(),
                              panicPort(),
                              powerButton(),
                          })),
  });
  return table("DSDT", 2, body);  // revision 2: 64-bit integers
}

std::vector<uint8_t> acpiTables(const AcpiMachine& machine) {
  Bytes all(RSDP_SIZE);
  auto place = [&all](const Bytes& bytes) {
    all.resize((all.size() + 15) & ~size_t(15));
    uint64_t address = ACPI_TABLES_ADDRESS + all.size();
    all.insert(all.end(), bytes.begin(), bytes.end());
    return address;
  };
  uint64_t dsdtAddress = place(dsdt(machine));
  Bytes pointers;
  append(pointers, place(fadt(dsdtAddress)), 8);
  append(pointers, place(madt(machine.vcpus)), 8);
  append(pointers, place(mcfg()), 8);
  uint64_t xsdt = place(table("XSDT", 1, pointers));

  memcpy(&all[0], "RSD PTR ", 8);  // §5.2.5.3
  memcpy(&all[9], "TROUPE", 6);
  all[15] = 2;
  put(all, 20, RSDP_SIZE, 4);
  put(all, 24, xsdt, 8);
  all[8] = checksum(all.data(), RSDP_V1_SIZE);
  all[32] = checksum(all.data(), RSDP_SIZE);
  KJ_ASSERT(all.size() <= ACPI_TABLES_ROOM);
  return all;
}

uint64_t writeAcpiTables(const GuestRam& ram, const AcpiMachine& machine) {
  auto tables = acpiTables(machine);
  auto place = KJ_ASSERT_NONNULL(ram.slice(ACPI_TABLES_ADDRESS, tables.size()));
  memcpy(place.begin(), tables.data(), tables.size());
  return ACPI_TABLES_ADDRESS;
}

}  // namespace troupe::broker
