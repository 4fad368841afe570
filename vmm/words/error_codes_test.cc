#include "vmm/words/error_codes.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace troupe {
namespace {

// How many rows each code has in docs/errors.md: "| TRP-cfg-001 | … |".
std::map<std::string, int> documentedRows() {
  std::ifstream file("docs/errors.md");
  EXPECT_TRUE(file.good());
  const std::regex row("^\\| *`?(TRP-[a-z]+-[0-9]{3})`? *\\|.*");
  std::map<std::string, int> rows;
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (std::regex_match(line, match, row)) rows[match[1]]++;
  }
  return rows;
}

TEST(ErrorCodes, AreDifferentFromEachOther) {
  std::set<std::string> seen;
  for (auto& code : codes::ALL)
    EXPECT_TRUE(seen.insert(code.text).second) << code.text;
}

TEST(ErrorCodes, EachHasOneRowInTheDocumentation) {
  auto rows = documentedRows();
  for (auto& code : codes::ALL)
    EXPECT_EQ(rows[code.text], 1) << code.text;
}

TEST(ErrorCodes, NoCodeIsDocumentedTwice) {
  for (auto& row : documentedRows())
    EXPECT_EQ(row.second, 1) << row.first;
}

TEST(ErrorCodes, EachDocumentedAreaHasAnExitCode) {
  for (auto& row : documentedRows()) {
    std::string area = row.first.substr(4, row.first.size() - 8);
    bool known = false;
    for (auto& entry : codes::AREAS)
      known = known || area == entry.area;
    EXPECT_TRUE(known) << row.first;
  }
}

}  // namespace
}  // namespace troupe
