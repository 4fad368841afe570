#include "vmm/config/rng_option.h"

#include <gtest/gtest.h>

#include <string>

#include "vmm/words/user_error.h"

namespace troupe {
namespace {

std::string refusal(kj::StringPtr text) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { planRng(text); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

TEST(RngOption, IsOnOffOrLimited) {
  EXPECT_TRUE(planRng("on").on);
  EXPECT_EQ(planRng("on").rate.bytesPerSecond, 0u);
  EXPECT_FALSE(planRng("off").on);
  auto limited = planRng("rate=1M/4M+100iops");
  EXPECT_TRUE(limited.on);
  EXPECT_EQ(limited.rate.bytesPerSecond, 1u << 20);
  EXPECT_EQ(limited.rate.burstBytes, 4u << 20);
  EXPECT_EQ(limited.rate.itemsPerSecond, 100u);
}

TEST(RngOption, WhatIsNoneOfTheseIsRefused) {
  for (const char* text : {"", "yes", "ON", "rate", "1M", "on,rate=1M"})
    EXPECT_NE(refusal(text).find("TRP-cfg-006"), std::string::npos) << text;
  for (const char* text : {"rate=", "rate=0", "rate=-1", "rate=1X", "rate=99999T", "rate=1M/",
                           "rate=1M+1M", "rate=1K/1T", "rate=1M,2M"})
    EXPECT_NE(refusal(text).find("TRP-rng-002"), std::string::npos) << text;
}

}  // namespace
}  // namespace troupe
