#include "vmm/config/vm_plan.h"

#include <gtest/gtest.h>

#include <string>

#include "vmm/words/number_text.h"

namespace troupe {
namespace {

uint64_t sizeOf(kj::StringPtr text) {
  KJ_IF_MAYBE (size, parseSize(text)) {
    return *size;
  }
  return UINT64_MAX;
}

TEST(ParseSize, KnowsTheUnits) {
  EXPECT_EQ(sizeOf("4096"), 4096);
  EXPECT_EQ(sizeOf("4K"), 4096);
  EXPECT_EQ(sizeOf("512M"), 512ull << 20);
  EXPECT_EQ(sizeOf("2g"), 2ull << 30);
  EXPECT_EQ(sizeOf("1T"), 1ull << 40);
}

TEST(ParseSize, RefusesWhatDoesNotFit) {
  EXPECT_EQ(sizeOf("8388608T"), 1ull << 63);
  EXPECT_EQ(sizeOf("8388609T"), UINT64_MAX);
  EXPECT_EQ(sizeOf("18446744073709551616"), UINT64_MAX);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (auto text : {"", "M", "1MM", "1 M", "-1", "0x10", "1.5G", "M1"}) {
    EXPECT_EQ(sizeOf(text), UINT64_MAX) << text;
  }
}

TEST(SizeText, IsForPeople) {
  EXPECT_STREQ(sizeText(0).cStr(), "0 bytes");
  EXPECT_STREQ(sizeText(1).cStr(), "1 byte");
  EXPECT_STREQ(sizeText(512ull << 20).cStr(), "512M");
  EXPECT_STREQ(sizeText(1536ull << 20).cStr(), "1.5G");
  EXPECT_STREQ(sizeText(~0ull).cStr(), "16777215.9T");
}

}  // namespace
}  // namespace troupe
