#include "broker/aml.h"

#include <kj/debug.h>

namespace troupe::broker::aml {
namespace {

constexpr uint8_t ZERO_OP = 0x00;
constexpr uint8_t ONE_OP = 0x01;
constexpr uint8_t NAME_OP = 0x08;
constexpr uint8_t BYTE_PREFIX = 0x0a;
constexpr uint8_t WORD_PREFIX = 0x0b;
constexpr uint8_t DWORD_PREFIX = 0x0c;
constexpr uint8_t STRING_PREFIX = 0x0d;
constexpr uint8_t QWORD_PREFIX = 0x0e;
constexpr uint8_t SCOPE_OP = 0x10;
constexpr uint8_t BUFFER_OP = 0x11;
constexpr uint8_t PACKAGE_OP = 0x12;
constexpr uint8_t METHOD_OP = 0x14;
constexpr uint8_t DUAL_NAME_PREFIX = 0x2e;
constexpr uint8_t MULTI_NAME_PREFIX = 0x2f;
constexpr uint8_t EXT_PREFIX = 0x5b;
constexpr uint8_t REGION_OP = 0x80;
constexpr uint8_t FIELD_OP = 0x81;
constexpr uint8_t DEVICE_OP = 0x82;
constexpr uint8_t NOTIFY_OP = 0x86;
constexpr uint8_t IF_OP = 0xa0;

constexpr uint8_t SYSTEM_IO = 1;
constexpr uint8_t BYTE_ACCESS = 1;
constexpr uint8_t SERIALIZED = 1 << 3;

Bytes littleEndian(uint64_t value, size_t size) {
  Bytes bytes;
  for (size_t i = 0; i < size; ++i)
    bytes.push_back(uint8_t(value >> (8 * i)));
  return bytes;
}

// PkgLength (§20.2.4), which counts itself. `extra`: 1 to 4 bytes, the least that will do.
Bytes lengthBytes(size_t value, size_t size) {
  if (size == 1) return {uint8_t(value)};
  Bytes bytes{uint8_t((size - 1) << 6 | (value & 0xf))};
  for (size_t i = 1; i < size; ++i)
    bytes.push_back(uint8_t(value >> (4 + 8 * (i - 1))));
  return bytes;
}

// Puts the length of itself and `body` before `body`.
Bytes withLength(const Bytes& body) {
  for (size_t size = 1; size <= 4; ++size) {
    size_t total = body.size() + size;
    size_t most = size == 1 ? 0x3f : (size_t(1) << (4 + 8 * (size - 1))) - 1;
    if (total <= most) return join({lengthBytes(total, size), body});
  }
  KJ_FAIL_ASSERT("AML object too long", body.size());
}

// The same length without counting itself, as a field list uses it for widths in bits.
Bytes bitWidth(size_t bits) {
  KJ_ASSERT(bits <= 0x3f);
  return {uint8_t(bits)};
}

Bytes segment(const std::string& text) {
  KJ_ASSERT(!text.empty() && text.size() <= 4, text.c_str());
  Bytes bytes(text.begin(), text.end());
  bytes.resize(4, '_');
  return bytes;
}

Bytes extended(uint8_t op, const Bytes& body) {
  return join({{EXT_PREFIX, op}, withLength(body)});
}

// A resource descriptor of the large kind: type, length, content.
Bytes large(uint8_t type, const Bytes& content) {
  return join({{type}, littleEndian(content.size(), 2), content});
}

// An address space descriptor (§6.4.3.5) whose numbers have `width` bytes.
Bytes addressSpace(uint8_t type, size_t width, uint8_t resourceType, uint8_t typeFlags,
                   uint64_t first, uint64_t last) {
  constexpr uint8_t FIXED_RANGE_PRODUCED = 0x0c;
  return large(type, join({{resourceType, FIXED_RANGE_PRODUCED, typeFlags},
                           littleEndian(0, width),  // granularity
                           littleEndian(first, width),
                           littleEndian(last, width),
                           littleEndian(0, width),  // translation
                           littleEndian(last - first + 1, width)}));
}

}  // namespace

Bytes join(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (auto& part : parts)
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

Bytes path(const std::string& text) {
  Bytes prefix;
  std::vector<Bytes> segments;
  size_t start = 0;
  if (text[0] == '\\') {
    prefix.push_back('\\');
    start = 1;
  }
  while (start <= text.size()) {
    size_t end = std::min(text.find('.', start), text.size());
    segments.push_back(segment(text.substr(start, end - start)));
    start = end + 1;
  }
  if (segments.size() == 2) prefix.push_back(DUAL_NAME_PREFIX);
  if (segments.size() > 2) {
    prefix.push_back(MULTI_NAME_PREFIX);
    prefix.push_back(uint8_t(segments.size()));
  }
  for (auto& s : segments)
    prefix = join({prefix, s});
  return prefix;
}

Bytes integer(uint64_t value) {
  if (value == 0) return {ZERO_OP};
  if (value == 1) return {ONE_OP};
  if (value <= 0xff) return join({{BYTE_PREFIX}, littleEndian(value, 1)});
  if (value <= 0xffff) return join({{WORD_PREFIX}, littleEndian(value, 2)});
  if (value <= 0xffffffff) return join({{DWORD_PREFIX}, littleEndian(value, 4)});
  return join({{QWORD_PREFIX}, littleEndian(value, 8)});
}

Bytes string(const std::string& text) {
  return join({{STRING_PREFIX}, Bytes(text.begin(), text.end()), {0}});
}

Bytes eisaId(const std::string& id) {
  // Three letters of five bits and four hex digits, most significant byte first (§19.3.4).
  KJ_ASSERT(id.size() == 7, id.c_str());
  uint32_t number = 0;
  for (size_t i = 0; i < 3; ++i)
    number = number << 5 | (id[i] - 0x40);
  number = number << 16 | uint32_t(std::stoul(id.substr(3), nullptr, 16));
  return integer(__builtin_bswap32(number));
}

Bytes package(const std::vector<Bytes>& elements) {
  KJ_ASSERT(elements.size() <= 0xff);
  Bytes body{uint8_t(elements.size())};
  for (auto& element : elements)
    body = join({body, element});
  return join({{PACKAGE_OP}, withLength(body)});
}

Bytes buffer(const Bytes& content) {
  return join({{BUFFER_OP}, withLength(join({integer(content.size()), content}))});
}

Bytes name(const std::string& text, const Bytes& value) {
  return join({{NAME_OP}, path(text), value});
}

Bytes scope(const std::string& text, const Bytes& body) {
  return join({{SCOPE_OP}, withLength(join({path(text), body}))});
}

Bytes device(const std::string& text, const Bytes& body) {
  return extended(DEVICE_OP, join({path(text), body}));
}

Bytes method(const std::string& text, uint8_t argumentCount, const Bytes& body) {
  Bytes flags{uint8_t(argumentCount | SERIALIZED)};
  return join({{METHOD_OP}, withLength(join({path(text), flags, body}))});
}

Bytes ioRegion(const std::string& region, uint16_t start, uint8_t size,
               const std::vector<std::string>& byteFields) {
  Bytes fields = join({path(region), {BYTE_ACCESS}});
  for (auto& field : byteFields)
    fields = join({fields, segment(field), bitWidth(8)});
  return join({{EXT_PREFIX, REGION_OP},
               path(region),
               {SYSTEM_IO},
               integer(start),
               integer(size),
               extended(FIELD_OP, fields)});
}

Bytes ifNotZero(const Bytes& predicate, const Bytes& body) {
  return join({{IF_OP}, withLength(join({predicate, body}))});
}

Bytes notify(const std::string& text, uint8_t value) {
  return join({{NOTIFY_OP}, path(text), integer(value)});
}

Bytes resources(const std::vector<Bytes>& descriptors) {
  Bytes all;
  for (auto& descriptor : descriptors)
    all = join({all, descriptor});
  return buffer(join({all, {0x79, 0}}));  // end tag; a checksum of 0 counts as right
}

Bytes busNumbers(uint16_t first, uint16_t last) {
  return addressSpace(0x88, 2, 2, 0, first, last);
}

Bytes ioPorts(uint16_t start, uint8_t size) {
  constexpr uint8_t DECODES_16_BITS = 1;
  return join({{0x47, DECODES_16_BITS}, littleEndian(start, 2), littleEndian(start, 2), {1, size}});
}

Bytes fixedMemory(uint32_t start, uint32_t size) {
  constexpr uint8_t WRITABLE = 1;
  return large(0x86, join({{WRITABLE}, littleEndian(start, 4), littleEndian(size, 4)}));
}

Bytes memoryWindow(uint64_t start, uint64_t size) {
  constexpr uint8_t MEMORY = 0;
  constexpr uint8_t WRITABLE = 1;
  uint64_t last = start + size - 1;
  if (last <= 0xffffffff) return addressSpace(0x87, 4, MEMORY, WRITABLE, start, last);
  return addressSpace(0x8a, 8, MEMORY, WRITABLE, start, last);
}

Bytes edgeInterrupt(uint32_t gsi) {
  constexpr uint8_t CONSUMED_RISING_EDGE = 0x03;
  return large(0x89, join({{CONSUMED_RISING_EDGE, 1}, littleEndian(gsi, 4)}));
}

}  // namespace troupe::broker::aml
