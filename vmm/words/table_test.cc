#include "vmm/words/table.h"

#include <gtest/gtest.h>
#include <stdint.h>

#include <algorithm>
#include <string>

namespace troupe {
namespace {

constexpr kj::StringPtr HEADINGS[] = {"NAME"_kj, "PID"_kj, "LABEL"_kj};

Table tableOf(kj::StringPtr name, kj::StringPtr label) {
  Table table(HEADINGS);
  table.add(kj::arr(kj::str(name), kj::str("4711"), kj::str(label)));
  return table;
}

size_t longestLine(const std::string& text) {
  size_t longest = 0, cells = 0;
  for (char c : text) {
    if ((c & 0xc0) == 0x80) continue;
    cells = c == '\n' ? 0 : cells + 1;
    longest = std::max(longest, cells);
  }
  return longest;
}

TEST(Table, IsAsWideAsItNeedsToBe) {
  auto text = tableOf("vm", "web").render(SIZE_MAX);
  EXPECT_STREQ(text.cStr(), "NAME  PID   LABEL\nvm    4711  web\n");
  EXPECT_STREQ(tableOf("vm", "").render().cStr(), "NAME  PID   LABEL\nvm    4711\n");
  EXPECT_STREQ(tableOf("vm", "web").render(80).cStr(), text.cStr());
}

TEST(Table, FitsAndCutsTheWidestAlone) {
  std::string name(64, 'n');
  std::string label(250, 'l');
  std::string text = tableOf(name.c_str(), label.c_str()).render(80).cStr();
  EXPECT_EQ(longestLine(text), 80u) << text;
  EXPECT_NE(text.find("n…  4711  l"), std::string::npos) << text;
  EXPECT_NE(text.find("l…\n"), std::string::npos) << text;
}

TEST(Table, CutsBetweenCharacters) {
  std::string label;
  for (int i = 0; i < 100; i++)
    label += "ä";
  std::string text = tableOf("vm", label.c_str()).render(30).cStr();
  EXPECT_EQ(longestLine(text), 30u);
  EXPECT_NE(text.find("ä…\n"), std::string::npos) << text;
}

TEST(Table, NoColumnVanishes) {
  std::string text = tableOf("a long name", "a long label").render(1).cStr();
  EXPECT_NE(text.find("a …  47…  a …\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace troupe
