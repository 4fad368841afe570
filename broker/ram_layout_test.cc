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

std::string placing(std::initializer_list<RamRange> ranges) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() {
                 placedRegions(kj::arrayPtr(ranges.begin(), ranges.size()));
               })) {
    return exception->getDescription().cStr();
  }
  return "";
}

TEST(PlacedRegions, LieOneBehindTheOtherInTheFile) {
  const RamRange ranges[] = {{0, 4 * MIB}, {64 * MIB, 4096}, {HIGH_RAM_START, 2 * MIB}};
  auto regions = placedRegions(ranges);
  ASSERT_EQ(regions.size(), 3u);
  EXPECT_EQ(regions[1].fileOffset, 4 * MIB);
  EXPECT_EQ(regions[2].fileOffset, 4 * MIB + 4096);
  EXPECT_EQ(regions[2].guestAddress, HIGH_RAM_START);
}

TEST(PlacedRegions, AreRefusedWhereTheyCannotBe) {
  EXPECT_EQ(placing({{0, LOW_RAM_END}, {HIGH_RAM_START, RAM_LIMIT - HIGH_RAM_START}}), "");
  for (auto& ranges : std::initializer_list<std::initializer_list<RamRange>>{
           {},
           {{0, MIB}},
           {{4096, 4 * MIB}},
           {{0, 2 * MIB}, {2 * MIB, 0}},
           {{0, 2 * MIB}, {2 * MIB, 100}},
           {{0, 2 * MIB}, {2 * MIB + 1, 4096}},
           {{0, 4 * MIB}, {2 * MIB, 4096}},
           {{0, 2 * MIB}, {HIGH_RAM_START, 4096}, {4 * MIB, 4096}},
           {{0, LOW_RAM_END + 4096}},
           {{0, 2 * MIB}, {LOW_RAM_END, 4096}},
           {{0, 2 * MIB}, {HIGH_RAM_START - 4096, 8192}},
           {{0, 2 * MIB}, {LOW_RAM_END - 4096, HIGH_RAM_START}},
           {{0, 2 * MIB}, {RAM_LIMIT, 4096}},
           {{0, 2 * MIB}, {~4095ull, 8192}},
           {{0, 2 * MIB}, {HIGH_RAM_START, ~4095ull}}}) {
    EXPECT_EQ(placing(ranges).find("TRP-cfg-105: "), 0u) << ranges.size();
  }
  auto many = kj::heapArray<RamRange>(MOST_REGIONS + 1);
  for (auto i : kj::indices(many))
    many[i] = RamRange{i * 4 * MIB, 2 * MIB};
  EXPECT_ANY_THROW(placedRegions(many));
  EXPECT_EQ(placedRegions(many.slice(0, MOST_REGIONS)).size(), MOST_REGIONS);
}

TEST(CutRanges, RefusesNone) {
  expectRefused({}, "but none");
}

}  // namespace
}  // namespace troupe::broker
