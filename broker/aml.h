#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

// Writes ACPI Machine Language (ACPI 6.5, chapter 20): as much of it as our one DSDT says. Each
// function gives the bytes of one term; terms are put together with join().
namespace troupe::broker::aml {

using Bytes = std::vector<uint8_t>;

Bytes join(std::initializer_list<Bytes> parts);

// "_SB", "\\_SB.PCI0": segments of at most four letters, from the root when it starts with '\\'.
Bytes path(const std::string& text);

Bytes integer(uint64_t value);
Bytes string(const std::string& text);
Bytes eisaId(const std::string& id);  // "PNP0A08", as the number it is compressed to
Bytes package(const std::vector<Bytes>& elements);
Bytes buffer(const Bytes& content);

Bytes name(const std::string& path, const Bytes& value);
Bytes scope(const std::string& path, const Bytes& body);
Bytes device(const std::string& path, const Bytes& body);
Bytes method(const std::string& path, uint8_t argumentCount, const Bytes& body);

// System I/O ports [start, start + size) as `region`, cut into the named bytes from its start on.
Bytes ioRegion(const std::string& region, uint16_t start, uint8_t size,
               const std::vector<std::string>& byteFields);

Bytes ifNotZero(const Bytes& predicate, const Bytes& body);
Bytes notify(const std::string& path, uint8_t value);

// Resource descriptors (§6.4), to be gathered by resources().
Bytes resources(const std::vector<Bytes>& descriptors);
Bytes busNumbers(uint16_t first, uint16_t last);
Bytes ioPorts(uint16_t start, uint8_t size);
Bytes fixedMemory(uint32_t start, uint32_t size);
Bytes memoryWindow(uint64_t start, uint64_t size);  // what a bridge passes on
Bytes edgeInterrupt(uint32_t gsi);                  // rising edge, not shared

}  // namespace troupe::broker::aml
