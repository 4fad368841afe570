#include "devices/net/receive_filter.h"

#include <gtest/gtest.h>

namespace troupe::net {
namespace {

constexpr MacAddress OWN{{0x52, 0x54, 0, 0, 0, 1}};
constexpr MacAddress OTHER{{0x52, 0x54, 0, 0, 0, 2}};
constexpr MacAddress GROUP{{0x01, 0, 0x5e, 0, 0, 1}};
constexpr MacAddress GROUP_TOO{{0x33, 0x33, 0, 0, 0, 1}};
constexpr MacAddress BROADCAST{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

ReceiveFilter notPromiscuous() {
  ReceiveFilter filter(OWN);
  filter.setMode(virtio::NET_CTRL_RX_PROMISC, false);
  return filter;
}

ReceiveFilter::Table table(const MacAddress& address) {
  ReceiveFilter::Table result;
  result.addresses[0] = address;
  result.count = 1;
  return result;
}

TEST(ReceiveFilter, TakesEverythingAtFirst) {
  ReceiveFilter filter(OWN);
  for (auto address : {OWN, OTHER, GROUP, BROADCAST})
    EXPECT_TRUE(filter.accepts(address));
}

TEST(ReceiveFilter, ThenItsOwnAddressAndBroadcasts) {
  auto filter = notPromiscuous();
  EXPECT_TRUE(filter.accepts(OWN));
  EXPECT_TRUE(filter.accepts(BROADCAST));
  EXPECT_FALSE(filter.accepts(OTHER));
  EXPECT_FALSE(filter.accepts(GROUP));
  filter.setOwn(OTHER);
  EXPECT_TRUE(filter.accepts(OTHER));
  EXPECT_FALSE(filter.accepts(OWN));
}

TEST(ReceiveFilter, AndThoseOfItsTables) {
  auto filter = notPromiscuous();
  filter.setTables(table(OTHER), table(GROUP));
  EXPECT_TRUE(filter.accepts(OTHER));
  EXPECT_TRUE(filter.accepts(GROUP));
  EXPECT_FALSE(filter.accepts(GROUP_TOO));
  filter.setTables({}, {});
  EXPECT_FALSE(filter.accepts(OTHER));
}

TEST(ReceiveFilter, ATableThatOverflowsTakesAllOfItsKind) {
  auto filter = notPromiscuous();
  ReceiveFilter::Table many;
  many.overflows = true;
  filter.setTables({}, many);
  EXPECT_TRUE(filter.accepts(GROUP));
  EXPECT_FALSE(filter.accepts(OTHER));
  filter.setTables(many, {});
  EXPECT_TRUE(filter.accepts(OTHER));
  EXPECT_FALSE(filter.accepts(GROUP));
}

TEST(ReceiveFilter, EachModeDoesWhatItsNameSays) {
  struct Case {
    uint8_t mode;
    MacAddress address;
    bool accepted;
  };
  const Case cases[] = {{virtio::NET_CTRL_RX_ALLMULTI, GROUP, true},
                        {virtio::NET_CTRL_RX_ALLUNI, OTHER, true},
                        {virtio::NET_CTRL_RX_NOMULTI, GROUP_TOO, false},
                        {virtio::NET_CTRL_RX_NOUNI, OWN, false},
                        {virtio::NET_CTRL_RX_NOBCAST, BROADCAST, false}};
  for (const Case& item : cases) {
    auto filter = notPromiscuous();
    filter.setTables({}, table(GROUP_TOO));
    EXPECT_NE(filter.accepts(item.address), item.accepted) << int(item.mode);
    EXPECT_TRUE(filter.setMode(item.mode, true));
    EXPECT_EQ(filter.accepts(item.address), item.accepted) << int(item.mode);
  }
  EXPECT_FALSE(notPromiscuous().setMode(6, true));
}

}  // namespace
}  // namespace troupe::net
