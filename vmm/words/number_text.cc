#include "vmm/words/number_text.h"

namespace troupe {

kj::Maybe<uint64_t> parseNumber(kj::StringPtr text, uint64_t limit) {
  if (text.size() == 0) return nullptr;
  uint64_t number = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return nullptr;
    uint64_t digit = c - '0';
    if (number > (limit - digit) / 10 || digit > limit) return nullptr;
    number = number * 10 + digit;
  }
  return number;
}

kj::Maybe<uint64_t> parseSize(kj::StringPtr text) {
  constexpr uint64_t LIMIT = 1ull << 63;
  constexpr kj::StringPtr UNITS = "KMGT"_kj;
  if (text.size() == 0) return nullptr;
  uint32_t shift = 0;
  char unit = text[text.size() - 1];
  if (unit >= 'a' && unit <= 'z') unit -= 'a' - 'A';
  KJ_IF_MAYBE (index, UNITS.findFirst(unit)) {
    shift = 10 * (*index + 1);
  }
  auto digits = kj::heapString(text.begin(), text.size() - (shift > 0 ? 1 : 0));
  KJ_IF_MAYBE (number, parseNumber(digits, LIMIT >> shift)) {
    return *number << shift;
  }
  return nullptr;
}

kj::String sizeText(uint64_t bytes) {
  constexpr const char* UNITS[] = {"T", "G", "M", "K"};
  for (uint32_t i = 0; i < 4; i++) {
    uint64_t unit = 1ull << (40 - 10 * i);
    if (bytes < unit) continue;
    if (bytes % unit == 0) return kj::str(bytes / unit, UNITS[i]);
    uint64_t tenths = bytes / (unit / 1024) * 10 / 1024;  // cannot overflow
    return kj::str(tenths / 10, ".", tenths % 10, UNITS[i]);
  }
  return kj::str(bytes, bytes == 1 ? " byte" : " bytes");
}

}  // namespace troupe
