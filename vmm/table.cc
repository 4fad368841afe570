#include "vmm/table.h"

#include <kj/debug.h>

#include <algorithm>

namespace troupe {

namespace {

// Cells on the screen: every byte that begins a character.
size_t width(kj::StringPtr text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

}  // namespace

Table::Table(kj::ArrayPtr<const kj::StringPtr> headings) {
  add(KJ_MAP(heading, headings) { return kj::heapString(heading); });
}

void Table::add(kj::Array<kj::String> row) {
  KJ_REQUIRE(rows.empty() || row.size() == rows[0].size(), "a row has a cell for each heading");
  rows.add(kj::mv(row));
}

kj::String Table::render() const {
  auto widths = kj::heapArray<size_t>(rows[0].size());
  std::fill(widths.begin(), widths.end(), 0);
  for (auto& row : rows) {
    for (size_t i = 0; i < row.size(); i++)
      widths[i] = std::max(widths[i], width(row[i]));
  }
  kj::Vector<char> out;
  for (auto& row : rows) {
    for (size_t i = 0; i < row.size(); i++) {
      out.addAll(row[i]);
      if (i + 1 == row.size()) break;
      for (size_t pad = width(row[i]); pad < widths[i] + 2; pad++)
        out.add(' ');
    }
    out.add('\n');
  }
  return kj::heapString(out.begin(), out.size());
}

}  // namespace troupe
