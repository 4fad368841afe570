#include "vmm/words/quote.h"

#include <kj/vector.h>
#include <string.h>

#include <algorithm>
#include <cstdint>

namespace troupe {

namespace {

constexpr char HEX[] = "0123456789abcdef";

// The length of the well-formed UTF-8 sequence at `text`, 0 if there is none. Sequences that are
// control characters in Unicode (C1, bidirectional overrides) count as none: terminals obey them.
size_t printableSequence(kj::ArrayPtr<const char> text) {
  auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned char first = at(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  uint32_t point = first & (0xff >> (length + 1));
  for (size_t i = 1; i < length; i++) {
    if ((at(i) & 0xc0) != 0x80) return 0;
    point = point << 6 | (at(i) & 0x3f);
  }
  constexpr uint32_t SMALLEST[] = {0, 0, 0x80, 0x800, 0x10000};
  if (point < SMALLEST[length] || point > 0x10ffff) return 0;
  if (point >= 0xd800 && point <= 0xdfff) return 0;
  if (point < 0xa0 || (point >= 0x200b && point <= 0x200f) ||
      (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069)) {
    return 0;
  }
  return length;
}

void appendEscaped(kj::Vector<char>& out, unsigned char byte) {
  out.add('\\');
  switch (byte) {
    case '\n':
      out.add('n');
      return;
    case '\r':
      out.add('r');
      return;
    case '\t':
      out.add('t');
      return;
    default:
      out.add('x');
      out.add(HEX[byte >> 4]);
      out.add(HEX[byte & 15]);
  }
}

// Slips of the keyboard from `a` to `b`: a letter too many, missing, wrong, or two that changed
// places.
size_t distance(kj::StringPtr a, kj::StringPtr b) {
  size_t width = b.size() + 1;
  auto table = kj::heapArray<size_t>((a.size() + 1) * width);
  auto at = [&](size_t i, size_t j) -> size_t& { return table[i * width + j]; };
  for (size_t i = 0; i <= a.size(); i++)
    at(i, 0) = i;
  for (size_t j = 0; j <= b.size(); j++)
    at(0, j) = j;
  for (size_t i = 1; i <= a.size(); i++) {
    for (size_t j = 1; j <= b.size(); j++) {
      size_t substitution = at(i - 1, j - 1) + (a[i - 1] == b[j - 1] ? 0 : 1);
      at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, substitution});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
      }
    }
  }
  return at(a.size(), b.size());
}

}  // namespace

kj::String escape(kj::ArrayPtr<const char> text, size_t limit) {
  kj::Vector<char> out;
  while (text.size() > 0) {
    if (out.size() >= limit) {
      out.addAll(kj::StringPtr("…"));
      break;
    }
    size_t length = printableSequence(text);
    if (length == 0) {
      appendEscaped(out, text[0]);
      length = 1;
    } else {
      out.addAll(text.slice(0, length));
    }
    text = text.slice(length, text.size());
  }
  return kj::heapString(out.begin(), out.size());
}

kj::String quote(kj::StringPtr text, size_t limit) {
  return kj::str('"', escape(text, limit), '"');
}

kj::String shellWord(kj::StringPtr text) {
  constexpr size_t LONGEST = 1024;  // that somebody would type
  if (text.size() > LONGEST) return escape(text);
  bool isPlain = text.size() > 0 && text[0] != '~';
  bool isPrintable = true;
  for (char c : text) {
    bool isSafe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  (c != '\0' && strchr("_./:@%+,=~-", c) != nullptr);
    isPlain = isPlain && isSafe;
    isPrintable = isPrintable && c >= ' ' && c < 0x7f;
  }
  if (isPlain) return kj::heapString(text);
  kj::Vector<char> out;
  out.addAll(isPrintable ? "'"_kj : "$'"_kj);
  for (char c : text) {
    if (isPrintable) {
      out.addAll(c == '\'' ? "'\\''"_kj : kj::StringPtr());
      if (c != '\'') out.add(c);
    } else if (c < ' ' || c >= 0x7f) {
      appendEscaped(out, c);
    } else {
      if (c == '\'' || c == '\\') out.add('\\');
      out.add(c);
    }
  }
  out.add('\'');
  return kj::heapString(out.begin(), out.size());
}

kj::String errnoText(int error) {
  kj::StringPtr words = strerrordesc_np(error) ?: "unknown error";
  kj::StringPtr name = strerrorname_np(error) ?: "?";
  auto text = kj::str(words, " (", name, ")");
  // These words stand in the middle of a sentence.
  if (text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a') text[0] += 'a' - 'A';
  return text;
}

kj::Maybe<kj::StringPtr> nearest(kj::StringPtr word, kj::ArrayPtr<const kj::StringPtr> choices) {
  if (word.size() > 64) return nullptr;  // nobody's slip, and the comparison is quadratic
  size_t begun = 0;
  kj::Maybe<kj::StringPtr> whole;
  for (auto choice : choices) {
    if (word.size() < 2 || !choice.startsWith(word)) continue;
    begun++;
    whole = choice;
  }
  if (begun == 1) return whole;
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  kj::Maybe<kj::StringPtr> found;
  for (auto choice : choices) {
    size_t steps = distance(word, choice);
    if (steps < best) {
      best = steps;
      found = choice;
    }
  }
  return found;
}

kj::String didYouMean(kj::StringPtr word, kj::ArrayPtr<const kj::StringPtr> choices,
                      kj::StringPtr prefix) {
  KJ_IF_MAYBE (choice, nearest(word, choices)) {
    return kj::str("; did you mean ", prefix, *choice, "?");
  }
  return kj::str();
}

kj::String listChoices(kj::ArrayPtr<const kj::StringPtr> choices) {
  kj::Vector<char> out;
  for (size_t i = 0; i < choices.size(); i++) {
    if (i > 0) out.addAll(kj::StringPtr(i + 1 == choices.size() ? " or " : ", "));
    out.addAll(choices[i]);
  }
  return kj::heapString(out.begin(), out.size());
}

}  // namespace troupe
