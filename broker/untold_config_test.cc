#include "broker/untold_config.h"

#include <gtest/gtest.h>

#include <vector>

namespace troupe::broker {
namespace {

constexpr kj::byte ONES[] = {1, 1};
constexpr kj::byte TWOS[] = {2, 2};

std::vector<int> takeFrom(UntoldConfig& config, uint32_t& offset) {
  auto bytes = config.take(offset);
  return {bytes.begin(), bytes.end()};
}

TEST(UntoldConfig, BytesThatTouchAreToldAtOnceAndTheLastOfEachCounts) {
  UntoldConfig config;
  config.add(8, ONES);
  config.add(9, TWOS);
  uint32_t offset;
  EXPECT_EQ(takeFrom(config, offset), (std::vector<int>{1, 2, 2}));
  EXPECT_EQ(offset, 8u);
  EXPECT_TRUE(config.empty());
}

TEST(UntoldConfig, BytesApartAreToldApartTheLowestFirst) {
  UntoldConfig config;
  config.add(20, ONES);
  config.add(0, TWOS);
  uint32_t offset;
  EXPECT_EQ(takeFrom(config, offset), (std::vector<int>{2, 2}));
  EXPECT_EQ(offset, 0u);
  EXPECT_FALSE(config.empty());
  EXPECT_EQ(takeFrom(config, offset), (std::vector<int>{1, 1}));
  EXPECT_EQ(offset, 20u);
}

TEST(UntoldConfig, WhatPassesTheLargestSpaceIsDropped) {
  UntoldConfig config;
  config.add(MAX_CONFIG_SIZE - 1, ONES);
  config.add(UINT32_MAX, TWOS);
  uint32_t offset;
  EXPECT_EQ(takeFrom(config, offset), (std::vector<int>{1}));
  EXPECT_EQ(offset, MAX_CONFIG_SIZE - 1);
  EXPECT_TRUE(config.empty());
}

}  // namespace
}  // namespace troupe::broker
