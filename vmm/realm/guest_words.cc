#include "vmm/realm/guest_words.h"

#include <kj/vector.h>

#include "vmm/config/net_plan.h"
#include "vmm/words/number_text.h"
#include "vmm/words/split.h"

namespace troupe::realm {

namespace {

kj::Maybe<kj::uint> digitOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return nullptr;
}

// 1 to `mostDigits` hexadecimal digits and nothing else; at most 16.
kj::Maybe<uint64_t> parseHex(kj::ArrayPtr<const char> text, size_t mostDigits) {
  if (text.size() < 1 || text.size() > mostDigits) return nullptr;
  uint64_t number = 0;
  for (char c : text) {
    KJ_IF_MAYBE (digit, digitOf(c)) {
      number = number << 4 | *digit;
    } else {
      return nullptr;
    }
  }
  return number;
}

kj::Maybe<kj::uint> shiftOf(char unit) {
  switch (unit) {
    case 'b':
      return 0u;
    case 'k':
      return 10u;
    case 'M':
      return 20u;
    case 'G':
      return 30u;
    default:
      return nullptr;
  }
}

// What stands behind the unit never counted.
kj::Maybe<uint64_t> bytesOf(kj::StringPtr text) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9')
    digits++;
  auto unit = digits < text.size() ? shiftOf(text[digits]) : kj::Maybe<kj::uint>(0u);
  KJ_IF_MAYBE (shift, unit) {
    auto count = parseNumber(kj::heapString(text.begin(), digits), UINT64_MAX >> *shift);
    return count.map([shift](uint64_t n) { return n << *shift; });
  }
  return nullptr;
}

kj::Maybe<MemoryPolicy> policyOf(kj::StringPtr word) {
  if (word == "cached") return MemoryPolicy::HOST_CACHED;
  if (word == "device") return MemoryPolicy::HOST_DEVICE;
  return nullptr;
}

}  // namespace

kj::Maybe<bool> parseToggle(kj::StringPtr text) {
  if (text == "" || text == "true") return true;
  if (text == "false") return false;
  return nullptr;
}

kj::Maybe<uint64_t> parseCount(kj::StringPtr text, uint64_t limit) {
  KJ_IF_MAYBE (number, parseNumber(text, limit)) {
    if (*number > 0) return *number;
  }
  return nullptr;
}

kj::Maybe<MemoryWords> parseMemory(kj::StringPtr text) {
  auto parts = splitAtCommas(text, false);
  if (parts.size() > 3) return nullptr;
  MemoryWords words{parts.size() > 1, 0, 0, MemoryPolicy::GUEST_CACHED};
  if (words.isPlaced) {
    KJ_IF_MAYBE (base, parseHex(parts[0], 16)) {
      words.base = *base;
    } else {
      return nullptr;
    }
  }
  KJ_IF_MAYBE (size, bytesOf(parts[words.isPlaced ? 1 : 0])) {
    words.size = *size;
  } else {
    return nullptr;
  }
  if (parts.size() == 3) {
    KJ_IF_MAYBE (policy, policyOf(parts[2])) {
      words.policy = *policy;
    } else {
      return nullptr;
    }
  }
  return words;
}

kj::Maybe<BlockWords> parseBlock(kj::StringPtr text, kj::Vector<kj::String>& ignored) {
  BlockWords words;
  for (auto& part : splitAtCommas(text, false)) {
    if (part.startsWith("/")) {
      words.path = kj::mv(part);
    } else if (part == "fdio") {
      words.format = BlockFormat::RAW;
    } else if (part == "qcow") {
      words.format = BlockFormat::QCOW;
    } else if (part == "rw") {
      words.mode = BlockMode::READ_WRITE;
    } else if (part == "ro") {
      words.mode = BlockMode::READ_ONLY;
    } else if (part == "volatile") {
      words.mode = BlockMode::VOLATILE_WRITE;
    } else {
      ignored.add(kj::mv(part));
    }
  }
  if (words.path.size() == 0) return nullptr;
  return kj::mv(words);
}

kj::Maybe<Mac> parseMac(kj::StringPtr text) {
  Mac mac;
  auto rest = text.asArray();
  for (kj::uint i = 0; i < 6; i++) {
    size_t end = 0;
    while (end < rest.size() && rest[end] != ':')
      end++;
    KJ_IF_MAYBE (octet, parseHex(rest.slice(0, end), 2)) {
      mac.octets[i] = *octet;
    } else {
      return nullptr;
    }
    bool isLast = i == 5;
    if ((end == rest.size()) != isLast) return nullptr;
    if (!isLast) rest = rest.slice(end + 1, rest.size());
  }
  return mac;
}

kj::String macText(const Mac& mac) {
  return troupe::macText(mac.octets);
}

}  // namespace troupe::realm
