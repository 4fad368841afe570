#include "vmm/words/table.h"

#include <kj/debug.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

namespace troupe {

namespace {

constexpr size_t GAP = 2;
constexpr size_t NARROWEST = 3;  // that a column is cut to

bool beginsCharacter(char c) {
  return (c & 0xc0) != 0x80;
}

// Cells on the screen: every byte that begins a character.
size_t width(kj::StringPtr text) {
  return std::count_if(text.begin(), text.end(), beginsCharacter);
}

// The first characters of `text`, and an ellipsis if these are not all.
kj::String cut(kj::StringPtr text, size_t most) {
  if (width(text) <= most) return kj::heapString(text);
  size_t end = 0;
  for (size_t cells = 0; end < text.size(); end++) {
    if (beginsCharacter(text[end]) && ++cells == most) break;
  }
  return kj::str(text.slice(0, end), "…");
}

// Takes from the widest column, again and again.
void narrow(kj::ArrayPtr<size_t> widths, size_t most) {
  size_t gaps = GAP * (widths.size() - 1);
  for (;;) {
    size_t sum = gaps;
    for (size_t one : widths)
      sum += one;
    auto widest = std::max_element(widths.begin(), widths.end());
    if (sum <= most || *widest <= NARROWEST) return;
    --*widest;
  }
}

}  // namespace

size_t screenColumns() {
  constexpr size_t USUAL = 80;  // of a terminal that does not say
  if (!isatty(STDOUT_FILENO)) return SIZE_MAX;
  winsize size = {};
  bool isKnown = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return isKnown ? size.ws_col : USUAL;
}

Table::Table(kj::ArrayPtr<const kj::StringPtr> headings) {
  add(KJ_MAP(heading, headings) { return kj::heapString(heading); });
}

void Table::add(kj::Array<kj::String> row) {
  KJ_REQUIRE(rows.empty() || row.size() == rows[0].size(), "a row has a cell for each heading");
  rows.add(kj::mv(row));
}

kj::String Table::render(size_t most) const {
  auto widths = kj::heapArray<size_t>(rows[0].size());
  std::fill(widths.begin(), widths.end(), 0);
  for (auto& row : rows) {
    for (size_t i = 0; i < row.size(); i++)
      widths[i] = std::max(widths[i], width(row[i]));
  }
  narrow(widths, most);
  kj::Vector<char> out;
  for (auto& row : rows) {
    for (size_t i = 0; i < row.size(); i++) {
      auto cell = cut(row[i], widths[i]);
      out.addAll(cell);
      if (i + 1 == row.size()) break;
      for (size_t pad = width(cell); pad < widths[i] + GAP; pad++)
        out.add(' ');
    }
    while (out.size() > 0 && out.back() == ' ')
      out.removeLast();
    out.add('\n');
  }
  return kj::heapString(out.begin(), out.size());
}

}  // namespace troupe
