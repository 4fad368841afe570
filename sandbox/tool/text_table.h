#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace troupe::sandbox {

// Rows of text in columns as wide as they need to be, up to a width at which their text goes on in
// the next line.
class TextTable {
 public:
  // `widths`: the greatest of each column; 0 for a column whose text is never broken.
  TextTable(std::vector<std::string> headings, std::vector<size_t> widths);

  void add(std::vector<std::string> row);
  bool empty() const { return rows.size() == 1; }

  // Each line indented by two columns; "" when there is no row.
  std::string render() const;

 private:
  std::vector<size_t> widths;
  std::vector<std::vector<std::string>> rows;
};

}  // namespace troupe::sandbox
