#include "guest/payload/aml.h"

namespace payload {
namespace {

// ACPI 6.4, §20.2
constexpr uint8_t ZERO_OP = 0x00;
constexpr uint8_t ONE_OP = 0x01;
constexpr uint8_t NAME_OP = 0x08;
constexpr uint8_t BYTE_PREFIX = 0x0a;
constexpr uint8_t WORD_PREFIX = 0x0b;
constexpr uint8_t DWORD_PREFIX = 0x0c;
constexpr uint8_t QWORD_PREFIX = 0x0e;
constexpr uint8_t PACKAGE_OP = 0x12;
constexpr uint8_t METHOD_OP = 0x14;
constexpr uint8_t RETURN_OP = 0xa4;

// Bytes that are read front to back; all zero beyond the end.
struct Reader {
  const uint8_t* bytes;
  uint32_t length;
  uint32_t at;

  uint8_t peek(uint32_t ahead = 0) const { return at + ahead < length ? bytes[at + ahead] : 0; }
  uint8_t take() {
    uint8_t byte = peek();
    ++at;
    return byte;
  }
  // A package length: its top bits say how many bytes follow the first (§20.2.4).
  void skipPackageLength() { at += 1 + (peek() >> 6); }

  bool takeInteger(uint64_t& value) {
    unsigned size = 0;
    switch (take()) {
      case ZERO_OP:
        value = 0;
        return at <= length;
      case ONE_OP:
        value = 1;
        return true;
      case BYTE_PREFIX:
        size = 1;
        break;
      case WORD_PREFIX:
        size = 2;
        break;
      case DWORD_PREFIX:
        size = 4;
        break;
      case QWORD_PREFIX:
        size = 8;
        break;
      default:
        return false;
    }
    value = 0;
    for (unsigned i = 0; i < size; ++i) {
      value |= static_cast<uint64_t>(take()) << 8 * i;
    }
    return at <= length;
  }

  bool isName(const char* name) const {
    return peek(0) == name[0] && peek(1) == name[1] && peek(2) == name[2] && peek(3) == name[3];
  }
};

// How an object of the name at `at` is defined.
enum class Definition { NONE, NAME, METHOD };

Definition definitionBefore(const uint8_t* aml, uint32_t at) {
  if (at > 0 && aml[at - 1] == '\\') {
    --at;
  }
  if (at > 0 && aml[at - 1] == NAME_OP) {
    return Definition::NAME;
  }
  // A method has its length between; what we look for is short enough for one byte of it.
  return at > 1 && aml[at - 2] == METHOD_OP ? Definition::METHOD : Definition::NONE;
}

}  // namespace

bool findS5(const uint8_t* aml, uint32_t length, uint8_t& type) {
  for (uint32_t i = 0; i < length; ++i) {
    Reader reader{aml, length, i};
    if (!reader.isName("_S5_") || definitionBefore(aml, i) != Definition::NAME) {
      continue;
    }
    reader.at += 4;
    uint64_t value = 0;
    if (reader.take() != PACKAGE_OP) {
      continue;
    }
    reader.skipPackageLength();
    if (reader.take() > 0 && reader.takeInteger(value) && value < 8) {  // SLP_TYP has three bits
      type = value;
      return true;
    }
  }
  return false;
}

uint64_t findConfigBase(const uint8_t* aml, uint32_t length) {
  for (uint32_t i = 0; i < length; ++i) {
    Reader reader{aml, length, i};
    Definition definition = reader.isName("_CBA") ? definitionBefore(aml, i) : Definition::NONE;
    if (definition == Definition::NONE) {
      continue;
    }
    reader.at += 4;
    if (definition == Definition::METHOD) {
      reader.take();  // its flags
      if (reader.take() != RETURN_OP) {
        continue;
      }
    }
    uint64_t value = 0;
    if (reader.takeInteger(value)) {
      return value;
    }
  }
  return 0;
}

}  // namespace payload
