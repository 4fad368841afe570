#include "vmm/words/json_escapes.h"

#include <kj/string.h>
#include <kj/vector.h>

#include <cstdint>

namespace troupe {

namespace {

constexpr size_t ESCAPE_LENGTH = 6;  // \uXXXX

kj::Maybe<uint32_t> hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return nullptr;
}

// The UTF-16 unit of the escape at the start of `text`.
kj::Maybe<uint32_t> escapedUnit(kj::ArrayPtr<const char> text) {
  if (text.size() < ESCAPE_LENGTH || text[0] != '\\' || text[1] != 'u') return nullptr;
  uint32_t unit = 0;
  for (size_t i = 2; i < ESCAPE_LENGTH; i++) {
    KJ_IF_MAYBE (digit, hexDigit(text[i])) {
      unit = unit << 4 | *digit;
    } else {
      return nullptr;
    }
  }
  return unit;
}

struct Character {
  uint32_t point;
  size_t length;  // of its escape or pair of escapes
};

kj::Maybe<Character> escapedCharacter(kj::ArrayPtr<const char> text) {
  KJ_IF_MAYBE (first, escapedUnit(text)) {
    if (*first < 0xd800 || *first > 0xdfff) return Character{*first, ESCAPE_LENGTH};
    KJ_IF_MAYBE (second, escapedUnit(text.slice(ESCAPE_LENGTH, text.size()))) {
      if (*first > 0xdbff || *second < 0xdc00 || *second > 0xdfff) return nullptr;
      return Character{0x10000 + ((*first - 0xd800) << 10) + (*second - 0xdc00), 2 * ESCAPE_LENGTH};
    }
  }
  return nullptr;
}

void appendUtf8(kj::Vector<char>& out, uint32_t point) {
  auto tail = [&](int shift) { out.add(static_cast<char>(0x80 | ((point >> shift) & 0x3f))); };
  if (point == 0) {
    out.addAll(kj::StringPtr("\\u0000"));
  } else if (point == '"' || point == '\\') {
    out.add('\\');
    out.add(static_cast<char>(point));
  } else if (point < 0x80) {
    out.add(static_cast<char>(point));
  } else if (point < 0x800) {
    out.add(static_cast<char>(0xc0 | point >> 6));
    tail(0);
  } else if (point < 0x10000) {
    out.add(static_cast<char>(0xe0 | point >> 12));
    tail(6);
    tail(0);
  } else {
    out.add(static_cast<char>(0xf0 | point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace

kj::Maybe<kj::Array<char>> withoutUnicodeEscapes(kj::ArrayPtr<const char> json) {
  kj::Vector<char> out(json.size());
  while (json.size() > 0) {
    size_t length = 1;
    if (json[0] != '\\' || json.size() < 2) {
      out.add(json[0]);
    } else if (json[1] != 'u') {
      out.add(json[0]);
      out.add(json[1]);
      length = 2;
    } else {
      KJ_IF_MAYBE (character, escapedCharacter(json)) {
        appendUtf8(out, character->point);
        length = character->length;
      } else {
        return nullptr;
      }
    }
    json = json.slice(length, json.size());
  }
  return out.releaseAsArray();
}

}  // namespace troupe
