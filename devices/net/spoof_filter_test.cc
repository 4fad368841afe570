#include "devices/net/spoof_filter.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace troupe::net {
namespace {

constexpr MacAddress OWN{{0x52, 0x54, 0, 0, 0, 1}};
constexpr MacAddress OTHER{{0x52, 0x54, 0, 0, 0, 2}};

std::vector<kj::byte> start(const MacAddress& source, uint16_t type, const MacAddress& sender) {
  std::vector<kj::byte> bytes(SPOOF_FILTER_BYTES, 0);
  memset(bytes.data(), 0xff, 6);
  memcpy(bytes.data() + 6, source.bytes, 6);
  bytes[12] = type >> 8;
  bytes[13] = type;
  memcpy(bytes.data() + 22, sender.bytes, 6);
  return bytes;
}

bool genuine(const std::vector<kj::byte>& bytes) {
  return isGenuine(kj::arrayPtr(bytes.data(), bytes.size()), OWN);
}

TEST(SpoofFilter, NET04_ASourceOfSomebodyElsesIsNotGenuine) {
  EXPECT_TRUE(genuine(start(OWN, 0x0800, OTHER)));
  for (size_t i = 0; i < 6; i++) {
    MacAddress source = OWN;
    source.bytes[i] ^= 0x10;
    EXPECT_FALSE(genuine(start(source, 0x0800, OWN))) << i;
  }
}

TEST(SpoofFilter, NET04_ATagIsNotGenuine) {
  for (uint16_t type : {0x8100, 0x88a8, 0x9100})
    EXPECT_FALSE(genuine(start(OWN, type, OWN))) << type;
}

TEST(SpoofFilter, NET04_AnArpSenderOfSomebodyElsesIsNotGenuine) {
  for (uint16_t type : {0x0806, 0x8035}) {
    EXPECT_TRUE(genuine(start(OWN, type, OWN)));
    EXPECT_FALSE(genuine(start(OWN, type, OTHER)));
    auto cut = start(OWN, type, OWN);
    cut.resize(27);
    EXPECT_FALSE(genuine(cut)) << "the sender is cut off";
  }
}

TEST(SpoofFilter, NET04_AFrameWithoutAHeaderIsNotGenuine) {
  auto bytes = start(OWN, 0x0800, OWN);
  bytes.resize(13);
  EXPECT_FALSE(genuine(bytes));
}

}  // namespace
}  // namespace troupe::net
