// The control queue, and what comes of its commands.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>
#include <vector>

#include "devices/net/testing/net_bench.h"

namespace troupe::net {
namespace {

using testing::Bytes;
using testing::frame;
using testing::NetBench;
using testing::OTHER;
using testing::OWN;
using virtio::NET_ERR;
using virtio::NET_OK;
using virtio::testing::FakeRam;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr MacAddress GROUP{{0x01, 0x00, 0x5e, 0, 0, 1}};

std::vector<kj::byte> tables(std::vector<MacAddress> unicast, std::vector<MacAddress> multicast) {
  std::vector<kj::byte> bytes;
  for (auto& table : {unicast, multicast}) {
    uint32_t count = table.size();
    auto begin = reinterpret_cast<kj::byte*>(&count);
    bytes.insert(bytes.end(), begin, begin + sizeof(count));
    for (auto& address : table)
      bytes.insert(bytes.end(), address.bytes, address.bytes + 6);
  }
  return bytes;
}

uint8_t setTables(NetBench& bench, const std::vector<kj::byte>& bytes) {
  return bench.command(virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_TABLE_SET,
                       kj::arrayPtr(bytes.data(), bytes.size()));
}

uint8_t setPromiscuous(NetBench& bench, bool on) {
  return bench.command(virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_PROMISC, uint8_t(on));
}

uint8_t setPairs(NetBench& bench, uint16_t count) {
  return bench.command(virtio::NET_CTRL_MQ, virtio::NET_CTRL_MQ_VQ_PAIRS_SET, count);
}

NetBench::Options fourPairs() {
  NetBench::Options options;
  options.pairs = 4;
  options.features = testing::FEATURES | virtio::NET_F_MQ;
  return options;
}

// Whether a frame to `destination` arrives ahead of one that always does.
bool arrives(NetBench& bench, const MacAddress& destination) {
  bench.offer(2, 1536);
  bench.peer().send(frame(destination, OTHER, 60, 1));
  bench.peer().send(frame(testing::BROADCAST, OTHER, 60, 2));
  auto first = bench.waitForArrival().frame;
  if (first[20] == 2) return false;
  bench.waitForArrival();
  return true;
}

TEST(ControlQueue, TheTablesSayWhatElseArrives) {
  NetBench bench;
  EXPECT_EQ(setPromiscuous(bench, false), NET_OK);
  EXPECT_FALSE(arrives(bench, OTHER));
  EXPECT_FALSE(arrives(bench, GROUP));
  EXPECT_EQ(setTables(bench, tables({OTHER}, {GROUP})), NET_OK);
  EXPECT_TRUE(arrives(bench, OTHER));
  EXPECT_TRUE(arrives(bench, GROUP));
  EXPECT_EQ(setTables(bench, tables({}, {})), NET_OK);
  EXPECT_FALSE(arrives(bench, GROUP));
  EXPECT_EQ(bench.command(virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_ALLMULTI, uint8_t(1)), NET_OK);
  EXPECT_TRUE(arrives(bench, GROUP));
}

TEST(ControlQueue, AResetForgetsWhatTheDriverSaid) {
  NetBench bench;
  setPromiscuous(bench, false);
  EXPECT_FALSE(arrives(bench, OTHER));
  bench.device.reset();
  bench.activate(bench.device, testing::FEATURES);
  EXPECT_TRUE(arrives(bench, OTHER));
}

TEST(ControlQueue, TheDriverMayChangeItsAddress) {
  NetBench bench;
  setPromiscuous(bench, false);
  EXPECT_EQ(bench.command(virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_ADDR_SET, OTHER), NET_OK);
  EXPECT_TRUE(arrives(bench, OTHER));
  EXPECT_FALSE(arrives(bench, OWN));
  auto& changes = bench.device.host.configChanges;
  bench.device.settle();
  ASSERT_EQ(changes.size(), 1);
  EXPECT_EQ(changes[0].offset, 0);
  EXPECT_EQ(memcmp(changes[0].data.begin(), OTHER.bytes, 6), 0);
  bench.device.reset();
  bench.device.settle();
  ASSERT_EQ(changes.size(), 2);  // and finds its first one again, before it says DRIVER_OK
  EXPECT_EQ(memcmp(changes[1].data.begin(), OWN.bytes, 6), 0);
  bench.activate(bench.device, testing::FEATURES);
}

TEST(ControlQueue, NET04_AnAddressTheHostHasFixedStays) {
  NetBench::Options options;
  options.device.spoofFilter = true;
  NetBench bench(options);
  EXPECT_EQ(bench.command(virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_ADDR_SET, OTHER), NET_ERR);
  EXPECT_EQ(bench.command(virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_ADDR_SET, OWN), NET_OK);
  bench.send(frame(OTHER, OTHER, 60, 0));
  bench.waitForSent(1);
  EXPECT_TRUE(bench.nothingWasSent());
}

TEST(ControlQueue, NET03_AddressesOfGroupsAndOfNobodyAreRefused) {
  NetBench bench;
  for (auto address : {GROUP, testing::BROADCAST, MacAddress{}})
    EXPECT_EQ(bench.command(virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_ADDR_SET, address), NET_ERR);
  EXPECT_EQ(bench.device.host.configChanges.size(), 0);
}

TEST(ControlQueue, NET03_NumbersOfPairsThatAreNotThereAreRefused) {
  NetBench bench(fourPairs());
  for (uint16_t count : {0, 5, 0x8000, 0x8001, 0xffff})
    EXPECT_EQ(setPairs(bench, count), NET_ERR) << count;
  EXPECT_EQ(setPairs(bench, 4), NET_OK);
  EXPECT_EQ(bench.command(virtio::NET_CTRL_MQ, virtio::NET_CTRL_MQ_VQ_PAIRS_SET, uint8_t(1)),
            NET_ERR);
}

TEST(ControlQueue, NET03_MacTablesLongerThanTheirCommandAreRefused) {
  NetBench bench;
  setPromiscuous(bench, false);
  ASSERT_EQ(setTables(bench, tables({OTHER}, {})), NET_OK);
  for (uint32_t count : {2u, 0x2aaaaaabu, 0x7fffffffu, UINT32_MAX}) {
    auto unicast = tables({GROUP}, {});
    memcpy(unicast.data(), &count, sizeof(count));
    EXPECT_EQ(setTables(bench, unicast), NET_ERR) << count;
    auto multicast = tables({GROUP}, {GROUP});
    memcpy(multicast.data() + 10, &count, sizeof(count));
    EXPECT_EQ(setTables(bench, multicast), NET_ERR) << count;
  }
  auto longer = tables({}, {});
  longer.push_back(0);
  EXPECT_EQ(setTables(bench, longer), NET_ERR);
  for (size_t bytes = 0; bytes < 8; bytes++)
    EXPECT_EQ(setTables(bench, std::vector<kj::byte>(bytes, 0)), NET_ERR) << bytes;
  EXPECT_TRUE(arrives(bench, OTHER)) << "a refused command has changed something";
}

TEST(ControlQueue, NET03_MoreAddressesThanAreKeptTakeAllOfTheirKind) {
  NetBench bench;
  setPromiscuous(bench, false);
  std::vector<MacAddress> many(5000, GROUP);
  EXPECT_EQ(setTables(bench, tables({}, many)), NET_OK);
  EXPECT_TRUE(arrives(bench, MacAddress{{0x33, 0x33, 0, 0, 0, 1}}));
  EXPECT_FALSE(arrives(bench, OTHER));
}

// Receive-side scaling is not offered, so none of its tables is looked at.
TEST(ControlQueue, NET03_CommandsOfRssAreRefused) {
  NetBench bench(fourPairs());
  for (size_t bytes : {0, 1, 9, 13, 44, 300}) {
    auto config = kj::heapArray<kj::byte>(bytes);
    memset(config.begin(), 0xff, bytes);
    for (uint8_t command : {1, 2})
      EXPECT_EQ(bench.command(virtio::NET_CTRL_MQ, command, config.asPtr()), NET_ERR);
  }
}

TEST(ControlQueue, NET03_UnknownAndUnnegotiatedCommandsAreRefused) {
  NetBench::Options options;
  options.features =
      testing::FEATURES & ~(virtio::NET_F_CTRL_RX | virtio::NET_F_CTRL_RX_EXTRA |
                            virtio::NET_F_CTRL_MAC_ADDR | virtio::NET_F_GUEST_ANNOUNCE);
  NetBench bench(options);
  const kj::byte data[8] = {};
  for (uint8_t commandClass : {0, 1, 2, 3, 4, 5, 6, 255}) {
    for (uint8_t command : {0, 1, 2, 6, 255}) {
      for (size_t bytes : {0, 1, 2, 6, 8}) {
        EXPECT_EQ(bench.command(commandClass, command, kj::arrayPtr(data, bytes)), NET_ERR)
            << int(commandClass) << " " << int(command) << " " << bytes;
      }
    }
  }
}

TEST(ControlQueue, NET03_CommandsCutShortOrWithoutPlaceForAnAnswer) {
  NetBench bench;
  auto& driver = bench.control();
  const kj::byte header[] = {virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_PROMISC, 0};
  driver.add({driver.readableBuffer(kj::arrayPtr(header, 3))});
  EXPECT_EQ(bench.device.waitForUsed(2, driver).written, 0);  // it was not looked at
  EXPECT_TRUE(arrives(bench, OTHER));
  for (size_t bytes : {0, 1, 2}) {
    uint64_t answer = bench.ram.allocate(1);
    if (bytes > 0) {
      driver.add({driver.readableBuffer(kj::arrayPtr(header, bytes)), writable(answer, 1)});
    } else {
      driver.add({writable(answer, 1)});
    }
    EXPECT_EQ(bench.device.waitForUsed(2, driver).written, 1);
    EXPECT_EQ(bench.ram.bytes(answer, 1)[0], NET_ERR) << bytes;
  }
}

// The answer is the last byte of what may be written; what lies before it nobody writes.
TEST(ControlQueue, VQ12_TheAnswerCountsOnlyWhenNothingIsBeforeIt) {
  NetBench bench;
  auto& driver = bench.control();
  const kj::byte command[] = {virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_PROMISC, 1};
  uint64_t room = bench.ram.allocate(10);
  driver.add({driver.readableBuffer(kj::arrayPtr(command, 3)), writable(room, 10)});
  EXPECT_EQ(bench.device.waitForUsed(2, driver).written, 0);
  auto bytes = bench.ram.bytes(room, 10);
  EXPECT_EQ(bytes[9], NET_OK);
  for (kj::byte before : bytes.slice(0, 9))
    EXPECT_EQ(before, FakeRam::POISON);
}

TEST(ControlQueue, OffloadsAreThoseOfTheLastCommand) {
  auto options = fourPairs();
  options.pairs = 1;
  options.headers = true;
  options.features = testing::FEATURES | testing::OFFLOADS;
  NetBench bench(options);
  auto set = [&](uint64_t offloads) {
    return bench.command(virtio::NET_CTRL_GUEST_OFFLOADS, virtio::NET_CTRL_GUEST_OFFLOADS_SET,
                         offloads);
  };
  virtio::NetHeader checksum{};
  checksum.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  checksum.checksumStart = 34;
  auto first = [&] {
    bench.offer(2, 1536);
    bench.peer().send(testing::withHeader(checksum, frame(OWN, OTHER, 100, 1)));
    bench.peer().send(testing::withHeader({}, frame(OWN, OTHER, 100, 2)));
    auto arrival = bench.waitForArrival();
    if (arrival.frame[20] == 1) bench.waitForArrival();
    return arrival.frame[20];
  };
  EXPECT_EQ(first(), 1);
  EXPECT_EQ(set(0), NET_OK);
  EXPECT_EQ(first(), 2);
  EXPECT_EQ(set(virtio::NET_F_GUEST_CSUM), NET_OK);
  EXPECT_EQ(first(), 1);
  EXPECT_EQ(set(virtio::NET_F_GUEST_UFO), NET_ERR) << "not negotiated";
  EXPECT_EQ(set(virtio::NET_F_CSUM), NET_ERR) << "not the guest's";
  EXPECT_EQ(set(UINT64_MAX), NET_ERR);
}

TEST(ControlQueue, PairsServeFromTheCommandThatBeginsThemToTheOneThatEndsThem) {
  NetBench bench(fourPairs());
  for (uint16_t i = 0; i < 4; i++) {
    bench.offer(4, 1536, i);
    bench.peer(i).send(frame(OWN, OTHER, 60, i));
    bench.send(frame(OTHER, OWN, 60, i), i);
  }
  EXPECT_EQ(bench.waitForArrival(0).frame, frame(OWN, OTHER, 60, 0));
  bench.device.settle();
  for (uint16_t i = 1; i < 4; i++) {
    EXPECT_TRUE(bench.takeArrival(i) == nullptr);
    EXPECT_EQ(bench.transmitter(i).usedIndex(), 0);
  }
  EXPECT_EQ(setPairs(bench, 4), NET_OK);
  for (uint16_t i = 1; i < 4; i++) {
    EXPECT_EQ(bench.waitForArrival(i).frame, frame(OWN, OTHER, 60, i));
    EXPECT_EQ(bench.waitForFrame(i), frame(OTHER, OWN, 60, i));
  }
  EXPECT_EQ(setPairs(bench, 2), NET_OK);
  for (uint16_t i = 0; i < 4; i++) {
    bench.peer(i).send(frame(OWN, OTHER, 60, 9));
    bench.send(frame(OTHER, OWN, 60, 9), i);
  }
  for (uint16_t i = 0; i < 2; i++)
    EXPECT_EQ(bench.waitForArrival(i).frame, frame(OWN, OTHER, 60, 9));
  bench.device.settle();
  for (uint16_t i = 2; i < 4; i++) {
    EXPECT_TRUE(bench.takeArrival(i) == nullptr);
    EXPECT_EQ(bench.transmitter(i).usedIndex(), 1);
  }
  EXPECT_EQ(setPairs(bench, 3), NET_OK);
  bench.waitForArrival(2);
  for (int i = 0; i < 50; i++)
    ASSERT_EQ(setPairs(bench, 1 + i % 4), NET_OK);
}

TEST(ControlQueue, APairThatIsEndedAndBegunAgainHasAllItsBuffers) {
  NetBench bench(fourPairs());
  constexpr int BUFFERS = 20;
  bench.offer(BUFFERS, 2048, 1);
  for (int i = 0; i < 20; i++)
    ASSERT_EQ(setPairs(bench, 1 + i % 2), NET_OK);
  for (int i = 0; i < BUFFERS; i++) {
    bench.peer(1).send(frame(OWN, OTHER, 60, i));
    EXPECT_EQ(bench.waitForArrival(1).frame, frame(OWN, OTHER, 60, i));
  }
}

TEST(ControlQueue, NET03_PairsWhoseQueuesAreNotEnabledAreRefused) {
  auto options = fourPairs();
  options.activated = false;
  NetBench bench(options);
  bench.activate(bench.device, options.features);
  bench.device.reset();
  const uint16_t queues[] = {0, 1, 2, 3, 4, 8};  // no transmit queue of the third pair
  bench.activateSome(bench.device, options.features, queues);
  EXPECT_EQ(setPairs(bench, 2), NET_OK);
  EXPECT_EQ(setPairs(bench, 3), NET_ERR);
  EXPECT_EQ(setPairs(bench, 4), NET_ERR);
}

// §5.1.2: a driver that knows nothing of MQ finds it at the place of a second pair.
TEST(ControlQueue, WithoutMqItIsTheThirdQueue) {
  auto options = fourPairs();
  options.features = testing::FEATURES;
  NetBench bench(options);
  EXPECT_EQ(setPromiscuous(bench, false), NET_OK);
  EXPECT_EQ(setPairs(bench, 1), NET_ERR);
  bench.send(frame(OTHER, OWN, 60, 1));
  EXPECT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 60, 1));
}

TEST(ControlQueue, ABrokenOneNeedsAResetWhichHeals) {
  NetBench bench;
  bench.control().makeAvailable(0xffff);
  bench.device.kick(2);
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
  bench.device.reset();
  bench.activate(bench.device, testing::FEATURES);
  EXPECT_EQ(setPromiscuous(bench, false), NET_OK);
}

TEST(ControlQueue, AResetWhilePairsAreEndedIsAnswered) {
  NetBench bench(fourPairs());
  for (int i = 0; i < 30; i++) {
    ASSERT_EQ(setPairs(bench, 4), NET_OK);
    auto& driver = bench.control();
    const kj::byte command[] = {virtio::NET_CTRL_MQ, virtio::NET_CTRL_MQ_VQ_PAIRS_SET, 1, 0};
    driver.add({driver.readableBuffer(command), driver.writableBuffer(1)});
    bench.device.kick(8);
    bench.device.reset();
    bench.activate(bench.device, testing::FEATURES | virtio::NET_F_MQ);
  }
}

}  // namespace
}  // namespace troupe::net
