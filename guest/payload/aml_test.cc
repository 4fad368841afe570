#include "guest/payload/aml.h"

#include <gtest/gtest.h>

#include <vector>

namespace payload {
namespace {

using Aml = std::vector<uint8_t>;

// The type findS5() finds in `aml`; -1 when it finds none.
int s5Of(const Aml& aml) {
  uint8_t type = 0;
  return findS5(aml.data(), aml.size(), type) ? type : -1;
}

uint64_t configBaseOf(const Aml& aml) {
  return findConfigBase(aml.data(), aml.size());
}

TEST(FindS5, ReadsAByteConstant) {
  EXPECT_EQ(s5Of({0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x05, 0x00, 0x00}), 5);
}

TEST(FindS5, ReadsTheConstantZero) {
  EXPECT_EQ(s5Of({0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x00, 0x00, 0x00, 0x00}), 0);
}

TEST(FindS5, ReadsANameAtTheRootAndALongPackageLength) {
  EXPECT_EQ(s5Of({0x5b, 0x08, '\\', '_', 'S', '5', '_', 0x12, 0x47, 0x00, 0x02, 0x01, 0x01}), 1);
}

TEST(FindS5, PassesOverAMentionThatIsNoDefinition) {
  EXPECT_EQ(s5Of({0x70, '_', 'S', '5', '_',  0x12, 0x06, 0x04, 0x01, 0x08,
                  '_',  'S', '5', '_', 0x12, 0x06, 0x04, 0x0a, 0x07, 0x00}),
            7);
}

TEST(FindS5, FindsNothingInATableThatEndsTooSoon) {
  Aml whole{0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x05};
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_EQ(s5Of(Aml(whole.begin(), whole.begin() + length)), -1) << length;
  }
}

TEST(FindS5, RefusesATypeOfMoreThanThreeBits) {
  EXPECT_EQ(s5Of({0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x08, 0x00}), -1);
}

TEST(FindConfigBase, ReadsAMethodThatReturnsAConstant) {
  EXPECT_EQ(configBaseOf({0x14, 0x0c, '_', 'C', 'B', 'A', 0x00, 0xa4, 0x0c, 0, 0, 0, 0xe0}),
            0xe0000000u);
}

TEST(FindConfigBase, ReadsANameOfEightBytes) {
  EXPECT_EQ(configBaseOf({0x08, '_', 'C', 'B', 'A', 0x0e, 0, 0, 0, 0, 0x40, 0, 0, 0}),
            0x4000000000u);
}

TEST(FindConfigBase, FindsNothingInAMethodThatComputes) {
  EXPECT_EQ(configBaseOf({0x14, 0x0c, '_', 'C', 'B', 'A', 0x00, 0x70, 0x0c, 0, 0, 0, 0xe0}), 0u);
}

}  // namespace
}  // namespace payload
