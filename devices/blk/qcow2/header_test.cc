#include "devices/blk/qcow2/header.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/exception.h>

#include <functional>
#include <string>

#include "devices/blk/qcow2/testing/blank_image.h"

namespace troupe::blk::qcow2 {
namespace {

using testing::BlankImage;
using testing::makeBlank;

// What is said of a blank image after a change; "" when nothing.
std::string refusal(const BlankImage& image, Access access, std::function<void(kj::byte*)> change) {
  auto bytes = makeBlank(image);
  change(bytes.begin());
  KJ_IF_MAYBE (exception,
               kj::runCatchingExceptions([&] { parseHeader(bytes, bytes.size(), access); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

std::string refusal(std::function<void(kj::byte*)> change) {
  return refusal(BlankImage(), Access::READ_WRITE, change);
}

::testing::AssertionResult says(const std::string& text, const char* code) {
  if (text.find(code) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << text << "' does not say " << code;
}

TEST(Qcow2Header, ABlankImageIsTaken) {
  EXPECT_EQ(refusal([](kj::byte*) {}), "");
  BlankImage old;
  old.version = 2;
  EXPECT_EQ(refusal(old, Access::READ_WRITE, [](kj::byte*) {}), "");
}

TEST(Qcow2Header, BLK06_AnotherFormatIsRefusedAndNotGuessed) {
  EXPECT_TRUE(says(refusal([](kj::byte* at) { at[0] = 'X'; }), "TRP-blk-020"));
}

TEST(Qcow2Header, FieldsOutOfRangeAreRefused) {
  auto with32 = [](size_t offset, uint32_t value) {
    return refusal([=](kj::byte* at) { store32(at + offset, value); });
  };
  auto with64 = [](size_t offset, uint64_t value) {
    return refusal([=](kj::byte* at) { store64(at + offset, value); });
  };
  EXPECT_TRUE(says(with32(20, 8), "TRP-blk-020"));  // cluster bits
  EXPECT_TRUE(says(with32(20, 22), "TRP-blk-020"));
  EXPECT_TRUE(says(with64(24, 0), "TRP-blk-020"));  // size
  EXPECT_TRUE(says(with64(24, UINT64_MAX), "TRP-blk-020"));
  EXPECT_TRUE(says(with32(36, 0), "TRP-blk-020"));  // L1 entries
  EXPECT_TRUE(says(with32(36, UINT32_MAX), "TRP-blk-020"));
  EXPECT_TRUE(says(with64(40, 0), "TRP-blk-020"));  // L1 offset
  EXPECT_TRUE(says(with64(40, 512), "TRP-blk-020"));
  EXPECT_TRUE(says(with64(40, 1ull << 40), "TRP-blk-020"));
  EXPECT_TRUE(says(with64(48, 1ull << 40), "TRP-blk-020"));  // refcount table
  EXPECT_TRUE(says(with32(56, 0), "TRP-blk-020"));
  EXPECT_TRUE(says(with32(56, UINT32_MAX), "TRP-blk-020"));
  EXPECT_TRUE(says(with32(60, UINT32_MAX), "TRP-blk-020"));  // snapshots
  EXPECT_TRUE(says(with32(60, 1), "TRP-blk-020"));           // and no table
  EXPECT_TRUE(says(with32(96, 7), "TRP-blk-020"));           // refcount order
  EXPECT_TRUE(says(with32(100, 96), "TRP-blk-020"));         // header length
  EXPECT_TRUE(says(with32(100, 108), "TRP-blk-020"));
  EXPECT_TRUE(says(with32(100, 1u << 30), "TRP-blk-020"));
}

TEST(Qcow2Header, FeaturesThatAreNotKnownAreRefused) {
  auto feature = [](uint64_t bit) {
    return refusal([=](kj::byte* at) { store64(at + AT_INCOMPATIBLE, bit); });
  };
  EXPECT_TRUE(says(feature(INCOMPATIBLE_EXTERNAL_DATA), "external file"));
  EXPECT_TRUE(says(feature(INCOMPATIBLE_EXTENDED_L2), "subclusters"));
  EXPECT_TRUE(says(feature(1 << 5), "TRP-blk-021"));
  EXPECT_TRUE(says(feature(INCOMPATIBLE_CORRUPT), "TRP-blk-022"));
  EXPECT_TRUE(says(feature(INCOMPATIBLE_COMPRESSION), "TRP-blk-020"));  // without a type
  EXPECT_TRUE(says(refusal([](kj::byte* at) { store32(at + 32, 2); }), "encrypted"));
  EXPECT_TRUE(says(refusal([](kj::byte* at) { store32(at + 4, 4); }), "TRP-blk-021"));
}

TEST(Qcow2Header, ACorruptImageCanStillBeRead) {
  EXPECT_EQ(refusal(BlankImage(), Access::READ_ONLY,
                    [](kj::byte* at) { store64(at + AT_INCOMPATIBLE, INCOMPATIBLE_CORRUPT); }),
            "");
}

TEST(Qcow2Header, BackingNameAndFormatAreFound) {
  BlankImage image;
  image.backingName = "base.raw";
  image.backingFormat = "raw";
  auto bytes = makeBlank(image);
  Header header = parseHeader(bytes, bytes.size(), Access::READ_WRITE);
  EXPECT_EQ(KJ_ASSERT_NONNULL(header.backingName), "base.raw");
  EXPECT_EQ(KJ_ASSERT_NONNULL(header.backingFormat), "raw");
}

TEST(Qcow2Header, BLK06_ABackingNameOutsideTheFirstClusterIsRefused) {
  BlankImage image;
  image.backingName = "base.raw";
  auto with = [&](uint64_t offset, uint32_t bytes) {
    return refusal(image, Access::READ_WRITE, [=](kj::byte* at) {
      store64(at + 8, offset);
      store32(at + 16, bytes);
    });
  };
  EXPECT_TRUE(says(with(65536 - 4, 8), "TRP-blk-020"));
  EXPECT_TRUE(says(with(UINT64_MAX - 4, 8), "TRP-blk-020"));
  EXPECT_TRUE(says(with(8, 8), "TRP-blk-020"));
  EXPECT_TRUE(says(with(200, 0), "TRP-blk-020"));
  EXPECT_TRUE(says(with(200, 1024), "TRP-blk-020"));
}

TEST(Qcow2Header, CompressedExtentsFollowTheClusterSize) {
  Geometry geometry{16, 4};
  auto extent = compressedExtent(COMPRESSED | (3ull << 54) | 0x12345, geometry);
  EXPECT_EQ(extent.offset, 0x12345u);
  EXPECT_EQ(extent.bytes, 4 * 512 - 0x145u);
}

}  // namespace
}  // namespace troupe::blk::qcow2
