#pragma once

#include <gtest/gtest.h>

#include <string>

namespace troupe::hostile {

// Those fuzz::jailedDevice() knows.
constexpr const char* DEVICES[] = {"balloon", "blk", "console", "net", "rng", "vsock"};

// Those whose profiles let another process take a dead one's place.
constexpr const char* REPLACED_DEVICES[] = {"balloon", "blk", "console", "net", "rng", "vsock"};

inline std::string deviceName(const ::testing::TestParamInfo<const char*>& info) {
  return info.param;
}

}  // namespace troupe::hostile

// `suite`: of TestWithParam<const char*>, the device's name.
#define INSTANTIATE_ON_EVERY_DEVICE(suite)                                                  \
  INSTANTIATE_TEST_SUITE_P(Devices, suite, ::testing::ValuesIn(::troupe::hostile::DEVICES), \
                           ::troupe::hostile::deviceName)
