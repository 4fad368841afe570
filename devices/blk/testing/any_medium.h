#pragma once

#include <gtest/gtest.h>

#include <string>

#include "devices/blk/testing/scratch_disk.h"

namespace troupe::blk::testing {

// For what holds of every disk, wherever it lies: INSTANTIATE_ON_ANY_MEDIUM in the test's file.
class OnAnyMedium: public ::testing::TestWithParam<Medium> {
 protected:
  void SetUp() override {
    if (!isAvailable(GetParam())) GTEST_SKIP() << "/var/tmp is in memory";
  }
};

inline std::string mediumName(const ::testing::TestParamInfo<Medium>& info) {
  switch (info.param) {
    case Medium::MEMORY:
      return "Memory";
    case Medium::CACHED:
      return "Cached";
    case Medium::DIRECT:
      return "Direct";
  }
  return "";
}

}  // namespace troupe::blk::testing

#define INSTANTIATE_ON_ANY_MEDIUM(fixture)                                            \
  INSTANTIATE_TEST_SUITE_P(Blk, fixture,                                              \
                           ::testing::Values(::troupe::blk::testing::Medium::MEMORY,  \
                                             ::troupe::blk::testing::Medium::CACHED,  \
                                             ::troupe::blk::testing::Medium::DIRECT), \
                           ::troupe::blk::testing::mediumName)
