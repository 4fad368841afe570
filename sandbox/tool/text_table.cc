#include "sandbox/tool/text_table.h"

#include <algorithm>

namespace troupe::sandbox {
namespace {

// Breaks at spaces and behind '|'.
std::vector<std::string> wrap(const std::string& text, size_t width) {
  std::vector<std::string> lines;
  std::string line;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find_first_of(" |", at);
    end = end == std::string::npos ? text.size() : end + 1;
    std::string piece = text.substr(at, end - at);
    size_t visible = piece.size() - (piece.back() == ' ' ? 1 : 0);
    if (width > 0 && !line.empty() && line.size() + visible > width) {
      line.erase(line.find_last_not_of(' ') + 1);
      lines.push_back(line);
      line.clear();
    }
    line += piece;
    at = end;
  }
  lines.push_back(line);
  return lines;
}

}  // namespace

TextTable::TextTable(std::vector<std::string> headings, std::vector<size_t> widths)
    : widths(std::move(widths)) {
  rows.push_back(std::move(headings));
}

void TextTable::add(std::vector<std::string> row) {
  rows.push_back(std::move(row));
}

std::string TextTable::render() const {
  if (empty()) return "";
  size_t columns = widths.size();
  std::vector<std::vector<std::vector<std::string>>> cells;
  std::vector<size_t> actual(columns, 0);
  for (const auto& row : rows) {
    cells.emplace_back();
    for (size_t i = 0; i < columns; i++) {
      cells.back().push_back(wrap(row[i], widths[i]));
      for (const std::string& line : cells.back().back())
        actual[i] = std::max(actual[i], line.size());
    }
  }

  std::string text;
  for (const auto& row : cells) {
    size_t height = 0;
    for (const auto& cell : row)
      height = std::max(height, cell.size());
    for (size_t y = 0; y < height; y++) {
      std::string line = "  ";
      for (size_t i = 0; i < columns; i++) {
        std::string part = y < row[i].size() ? row[i][y] : "";
        line += part + std::string(actual[i] - part.size() + 2, ' ');
      }
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + "\n";
    }
  }
  return text;
}

}  // namespace troupe::sandbox
