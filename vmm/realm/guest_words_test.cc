#include "vmm/realm/guest_words.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

namespace troupe::realm {
namespace {

TEST(GuestWords, AToggleThatIsOnlyNamedIsOn) {
  EXPECT_TRUE(KJ_ASSERT_NONNULL(parseToggle("")));
  EXPECT_TRUE(KJ_ASSERT_NONNULL(parseToggle("true")));
  EXPECT_FALSE(KJ_ASSERT_NONNULL(parseToggle("false")));
  for (auto text : {"1", "on", "True", " true", "false "})
    EXPECT_TRUE(parseToggle(text) == nullptr) << text;
}

TEST(GuestWords, ACountIsDecimalAndNotNothing) {
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseCount("4", 255)), 4u);
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseCount("255", 255)), 255u);
  for (auto text : {"", "0", "256", "-1", "0x4", "4 ", "99999999999999999999"})
    EXPECT_TRUE(parseCount(text, 255) == nullptr) << text;
}

TEST(GuestWords, MemoryHasABaseInHexadecimalAndASizeWithAUnit) {
  auto bare = KJ_ASSERT_NONNULL(parseMemory("512M"));
  EXPECT_FALSE(bare.isPlaced);
  EXPECT_EQ(bare.size, 512u << 20);
  EXPECT_EQ(bare.policy, MemoryPolicy::GUEST_CACHED);

  auto placed = KJ_ASSERT_NONNULL(parseMemory("ffff,4k"));
  EXPECT_TRUE(placed.isPlaced);
  EXPECT_EQ(placed.base, 0xffffu);
  EXPECT_EQ(placed.size, 4096u);
  EXPECT_EQ(placed.policy, MemoryPolicy::GUEST_CACHED);
  EXPECT_TRUE(KJ_ASSERT_NONNULL(parseMemory("0,1G")).isPlaced);

  EXPECT_EQ(KJ_ASSERT_NONNULL(parseMemory("0,1G,cached")).policy, MemoryPolicy::HOST_CACHED);
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseMemory("0,1G,device")).policy, MemoryPolicy::HOST_DEVICE);
}

TEST(GuestWords, TheUnitOfMemoryIsOneLetterAndWhatFollowsItNeverCounted) {
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseMemory("7")).size, 7u);
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseMemory("7b")).size, 7u);
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseMemory("7k")).size, 7u << 10);
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseMemory("7G")).size, 7ull << 30);
  EXPECT_EQ(KJ_ASSERT_NONNULL(parseMemory("7MiB")).size, 7u << 20);
  for (auto text : {"", "M", "7K", "7m", "7T", "-7M", "0x7M", "17179869184G"})
    EXPECT_TRUE(parseMemory(text) == nullptr) << text;
}

TEST(GuestWords, MemoryOfOtherFormsIsRefused) {
  for (auto text : {",1G", "0,", "g,1G", "0x0,1G", "0,1G,", "0,1G,guest", "0,1G,cached,device",
                    "11112222333344445,1G"})
    EXPECT_TRUE(parseMemory(text) == nullptr) << text;
}

TEST(GuestWords, ABlockDeviceIsAPathAndWordsInAnyOrder) {
  kj::Vector<kj::String> ignored;
  auto plain = KJ_ASSERT_NONNULL(parseBlock("/pkg/disk.img", ignored));
  EXPECT_STREQ(plain.path.cStr(), "/pkg/disk.img");
  EXPECT_EQ(plain.format, BlockFormat::RAW);
  EXPECT_EQ(plain.mode, BlockMode::READ_WRITE);

  auto all = KJ_ASSERT_NONNULL(parseBlock("volatile,/a,qcow", ignored));
  EXPECT_EQ(all.format, BlockFormat::QCOW);
  EXPECT_EQ(all.mode, BlockMode::VOLATILE_WRITE);
  EXPECT_EQ(ignored.size(), 0u);
}

TEST(GuestWords, OfTwoWordsOfAKindTheLastOneCountsAndUnknownOnesAreTold) {
  kj::Vector<kj::String> ignored;
  auto block = KJ_ASSERT_NONNULL(parseBlock("/a,ro,/b,rw,qcow,fdio,snapshot", ignored));
  EXPECT_STREQ(block.path.cStr(), "/b");
  EXPECT_EQ(block.format, BlockFormat::RAW);
  EXPECT_EQ(block.mode, BlockMode::READ_WRITE);
  ASSERT_EQ(ignored.size(), 1u);
  EXPECT_STREQ(ignored[0].cStr(), "snapshot");
}

TEST(GuestWords, ABlockDeviceWithoutAPathIsRefused) {
  kj::Vector<kj::String> ignored;
  for (auto text : {"", "ro", "disk.img,ro"})
    EXPECT_TRUE(parseBlock(text, ignored) == nullptr) << text;
}

TEST(GuestWords, AMacAddressHasSixBytesOfUpToTwoDigits) {
  EXPECT_STREQ(macText(KJ_ASSERT_NONNULL(parseMac("02:1a:11:00:01:00"))).cStr(),
               "02:1a:11:00:01:00");
  EXPECT_STREQ(macText(KJ_ASSERT_NONNULL(parseMac("2:1A:11:0:1:0"))).cStr(), "02:1a:11:00:01:00");
  for (auto text : {"", "02:1a:11:00:01", "02:1a:11:00:01:00:00", "000:111:0:0:0:0",
                    "02:1a:11:00:01:", ":1a:11:00:01:00", "02-1a-11-00-01-00", "02:1g:11:00:01:00"})
    EXPECT_TRUE(parseMac(text) == nullptr) << text;
}

}  // namespace
}  // namespace troupe::realm
