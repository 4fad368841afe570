#include "broker/ram_layout.h"

#include <gtest/gtest.h>
#include <kj/exception.h>

#include <string>

#include "broker/memory_map.h"

namespace troupe::broker {
namespace {

TEST(RamRegions, LeaveTheHoleFree) {
  auto small = ramRegions(2 * MIB);
  ASSERT_EQ(small.size(), 1u);
  EXPECT_EQ(small[0].size, 2 * MIB);
  ASSERT_EQ(ramRegions(LOW_RAM_END).size(), 1u);

  auto large = ramRegions(LOW_RAM_END + 2 * MIB);
  ASSERT_EQ(large.size(), 2u);
  EXPECT_EQ(large[0].size, LOW_RAM_END);
  EXPECT_EQ(large[1].guestAddress, HIGH_RAM_START);
  EXPECT_EQ(large[1].fileOffset, LOW_RAM_END);
  EXPECT_EQ(large[1].size, 2 * MIB);
}

constexpr RamRange LAST_PAGES[] = {{LOW_RAM_END - 4096, 4096}, {HIGH_RAM_START + MIB, MIB}};

TEST(CutRanges, GivesTheNamedPartsAndWhereTheyLieInTheFile) {
  auto pieces = cutRanges(ramRegions(LOW_RAM_END + 2 * MIB), LAST_PAGES);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].guestAddress, LOW_RAM_END - 4096);
  EXPECT_EQ(pieces[0].fileOffset, LOW_RAM_END - 4096);
  EXPECT_EQ(pieces[0].size, 4096u);
  EXPECT_EQ(pieces[1].guestAddress, HIGH_RAM_START + MIB);
  EXPECT_EQ(pieces[1].fileOffset, LOW_RAM_END + MIB);
  EXPECT_EQ(pieces[1].size, MIB);
}

// The text of the refusal; "" when there is none.
std::string refusal(std::initializer_list<RamRange> ranges) {
  try {
    cutRanges(ramRegions(LOW_RAM_END + 2 * MIB), kj::arrayPtr(ranges.begin(), ranges.size()));
  } catch (const kj::Exception& exception) {
    return exception.getDescription().cStr();
  }
  return "";
}

void expectRefused(std::initializer_list<RamRange> ranges, const char* why) {
  auto text = refusal(ranges);
  EXPECT_EQ(text.find("TRP-cfg-104: "), 0u) << text;
  EXPECT_NE(text.find(why), std::string::npos) << text;
}

TEST(CutRanges, RefusesWhatIsNotRamOfOnePiece) {
  expectRefused({{LOW_RAM_END, 4096}}, "not inside one piece");
  expectRefused({{LOW_RAM_END - 4096, 8192}}, "not inside one piece");
  expectRefused({{LOW_RAM_END - 4096, HIGH_RAM_START - LOW_RAM_END + 8192}}, "not inside one");
  expectRefused({{HIGH_RAM_START + 2 * MIB, 4096}}, "not inside one piece");
  expectRefused({{0, ~4095ull}}, "not inside one piece");
  expectRefused({{~4095ull, 8192}}, "not inside one piece");
  EXPECT_EQ(refusal({{0, LOW_RAM_END}, {HIGH_RAM_START, 2 * MIB}}), "");
}

TEST(CutRanges, RefusesPartsOfPages) {
  expectRefused({{1, 4096}}, "whole pages");
  expectRefused({{0, 4095}}, "whole pages");
  expectRefused({{0, 0}}, "whole pages");
}

TEST(CutRanges, RefusesDisorderAndOverlap) {
  expectRefused({{4096, 4096}, {0, 4096}}, "before the end of the one before it");
  expectRefused({{0, 8192}, {4096, 4096}}, "before the end of the one before it");
  expectRefused({{0, 4096}, {0, 4096}}, "before the end of the one before it");
}

TEST(CutRanges, RefusesNone) {
  expectRefused({}, "but none");
}

}  // namespace
}  // namespace troupe::broker
