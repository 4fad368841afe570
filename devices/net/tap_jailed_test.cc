// troupe-net in its jail on a real tap.
#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>

#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/net/testing/net_driver.h"
#include "devices/net/testing/test_tap.h"
#include "devices/virtio/testing/process_bench.h"

namespace troupe::net {
namespace {

using testing::frame;
using testing::NetDriver;
using testing::OTHER;
using testing::OWN;
using testing::TestTap;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint16_t SEGMENT = 1448;

struct Bench: public NetDriver {
  explicit Bench(uint16_t queues, uint64_t offloads = testing::OFFLOADS)
      : NetDriver(queues, 1024), tap(queues) {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<NetConfig>();
    config.setMac(kj::ArrayPtr<const kj::byte>(OWN.bytes));
    config.setQueuePairs(queues);
    config.setBackend(NetConfig::Backend::TAP);
    auto can = config.initOffloads();
    can.setChecksum(true);
    can.setTso4(true);
    can.setTso6(true);
    can.setEcn(true);
    can.setUso(offloads & virtio::NET_F_HOST_USO);
    kj::Vector<HandedFd> fds;
    for (uint16_t i = 0; i < queues; i++)
      fds.add(HandedFd{"tap", i, tap.queue(i)});
    device = kj::heap<ProcessBench>(ram, NET_PROFILE, "troupe-net", 2 * queues + 1, fds,
                                    message.getRoot<capnp::AnyPointer>().asReader());
    device->attach();
    device->describe();
    activate(*device, testing::FEATURES | offloads | (queues > 1 ? virtio::NET_F_MQ : 0));
  }

  uint8_t usePairs(uint16_t count) {
    return command(*device, virtio::NET_CTRL_MQ, virtio::NET_CTRL_MQ_VQ_PAIRS_SET, count);
  }
  uint8_t activateWithPairs(uint16_t count) {
    return activateWithCommand(*device, testing::FEATURES | testing::OFFLOADS | virtio::NET_F_MQ,
                               virtio::NET_CTRL_MQ, virtio::NET_CTRL_MQ_VQ_PAIRS_SET,
                               kj::arrayPtr(&count, 1).asBytes());
  }
  // What the host gets of the guest's, of what is neither the kernel's own.
  testing::Bytes waitForFrame() {
    testing::Bytes result;
    device->waitUntil([&] {
      KJ_IF_MAYBE (got, tap.receive()) {
        result = kj::mv(*got);
        return memcmp(result.begin() + sizeof(virtio::NetHeader), OTHER.bytes, 6) == 0;
      }
      return false;
    });
    return result;
  }
  // The next frame for this guest: the kernel sends some of its own to groups.
  Arrival waitForOwn(uint16_t pair = 0) {
    for (;;) {
      auto arrival = waitForArrival(*device, pair);
      if (memcmp(arrival.frame.begin(), OWN.bytes, 6) == 0) return arrival;
    }
  }
  // How many frames of different flows come to each pair.
  kj::Array<uint32_t> spread(uint32_t flows, uint16_t firstPort = 10000) {
    auto counts = kj::heapArray<uint32_t>(pairs);
    for (uint16_t i = 0; i < pairs; i++) {
      counts[i] = 0;
      offer(*device, 100, 1536, i);
    }
    for (uint32_t i = 0; i < flows; i++)
      tap.send({}, testing::udpFrame(OWN, OTHER, firstPort + i));
    uint32_t seen = 0;
    device->waitUntil([&] {
      for (uint16_t i = 0; i < pairs; i++) {
        KJ_IF_MAYBE (arrival, takeArrival(i)) {
          bool own = memcmp(arrival->frame.begin(), OWN.bytes, 6) == 0;
          counts[i] += own;
          seen += own;
        }
      }
      return seen == flows;
    });
    return counts;
  }

  TestTap tap;
  kj::Own<ProcessBench> device;
};

TEST(TapJailed, FramesPassInBothDirections) {
  Bench bench(1);
  EXPECT_EQ(kj::strArray(bench.device->attest(sandbox::Stage::RUN), "\n"), "");
  bench.offer(*bench.device, 20, 1536);
  for (int i = 0; i < 10; i++) {
    bench.send(*bench.device, frame(OTHER, OWN, 1514, i));
    EXPECT_EQ(bench.waitForFrame(), testing::withHeader({}, frame(OTHER, OWN, 1514, i)));
    bench.tap.send({}, frame(OWN, OTHER, 1514, i));
    EXPECT_EQ(bench.waitForOwn().frame, frame(OWN, OTHER, 1514, i));
  }
}

TEST(TapJailed, LargeSegmentsPassWholeInBothDirections) {
  Bench bench(1);
  bench.offer(*bench.device, 200, 1536);
  auto out = testing::tcpPacket(OTHER, OWN, 40 * SEGMENT, SEGMENT);
  bench.send(*bench.device, out.header, out.frame);
  auto sent = bench.waitForFrame();
  EXPECT_EQ(sent.size(), sizeof(virtio::NetHeader) + out.frame.size());
  EXPECT_EQ(sent[1], virtio::NET_HDR_GSO_TCPV4);

  auto in = testing::tcpPacket(OWN, OTHER, 40 * SEGMENT, SEGMENT);
  bench.tap.send(in.header, in.frame);
  auto arrival = bench.waitForOwn();
  EXPECT_EQ(arrival.frame, in.frame);
  EXPECT_EQ(arrival.header.gsoType, virtio::NET_HDR_GSO_TCPV4);
  EXPECT_EQ(arrival.header.gsoSize, SEGMENT);
  EXPECT_EQ(arrival.header.flags, virtio::NET_HDR_F_NEEDS_CSUM);
}

TEST(TapJailed, LargeUdpSegmentsPassWholeInBothDirections) {
  constexpr uint64_t USO =
      virtio::NET_F_HOST_USO | virtio::NET_F_GUEST_USO4 | virtio::NET_F_GUEST_USO6;
  Bench bench(1, testing::OFFLOADS | USO);
  if (!bench.tap.hasUdpSegments()) GTEST_SKIP() << "taps have them since Linux 6.2";
  bench.offer(*bench.device, 200, 1536);
  auto out = testing::udpPacket(OTHER, OWN, 40 * SEGMENT, SEGMENT);
  bench.send(*bench.device, out.header, out.frame);
  auto sent = bench.waitForFrame();
  EXPECT_EQ(sent.size(), sizeof(virtio::NetHeader) + out.frame.size());
  EXPECT_EQ(sent[1], virtio::NET_HDR_GSO_UDP_L4);

  auto in = testing::udpPacket(OWN, OTHER, 40 * SEGMENT, SEGMENT);
  bench.tap.send(in.header, in.frame);
  auto arrival = bench.waitForOwn();
  EXPECT_EQ(arrival.frame, in.frame);
  EXPECT_EQ(arrival.header.gsoType, virtio::NET_HDR_GSO_UDP_L4);
  EXPECT_EQ(arrival.header.gsoSize, SEGMENT);
}

// The tap is told what the driver agreed to: the kernel cuts segments up and fills checksums in.
TEST(TapJailed, ADriverWithoutOffloadsGetsFramesAsTheyAreOnAWire) {
  Bench bench(1, 0);
  bench.offer(*bench.device, 200, 1536);
  auto in = testing::tcpPacket(OWN, OTHER, 10 * SEGMENT, SEGMENT);
  bench.tap.send(in.header, in.frame);
  for (int i = 0; i < 10; i++) {
    auto arrival = bench.waitForOwn();
    EXPECT_EQ(arrival.frame.size(), 54 + SEGMENT);
    EXPECT_EQ(arrival.header.gsoType, virtio::NET_HDR_GSO_NONE);
    EXPECT_EQ(arrival.header.flags, 0);
  }
}

TEST(TapJailed, OffloadsFollowTheDriversCommand) {
  Bench bench(1);
  auto set = [&](uint64_t offloads) {
    return bench.command(*bench.device, virtio::NET_CTRL_GUEST_OFFLOADS,
                         virtio::NET_CTRL_GUEST_OFFLOADS_SET, offloads);
  };
  auto in = testing::tcpPacket(OWN, OTHER, 4 * SEGMENT, SEGMENT);
  bench.offer(*bench.device, 200, 1536);
  EXPECT_EQ(set(0), virtio::NET_OK);
  bench.tap.send(in.header, in.frame);
  for (int i = 0; i < 4; i++)
    EXPECT_EQ(bench.waitForOwn().frame.size(), 54 + SEGMENT);
  EXPECT_EQ(set(virtio::NET_F_GUEST_CSUM | virtio::NET_F_GUEST_TSO4), virtio::NET_OK);
  bench.tap.send(in.header, in.frame);
  EXPECT_EQ(bench.waitForOwn().frame.size(), in.frame.size());
}

TEST(TapJailed, FlowsAreSpreadOverThePairsInUseAndNoOthers) {
  Bench bench(4);
  auto alone = bench.spread(64);
  EXPECT_EQ(alone[0], 64);
  EXPECT_EQ(bench.usePairs(4), virtio::NET_OK);
  auto all = bench.spread(64);
  for (uint16_t i = 0; i < 4; i++)
    EXPECT_GT(all[i], 0) << i;
  EXPECT_EQ(bench.usePairs(2), virtio::NET_OK);
  auto two = bench.spread(64);
  EXPECT_EQ(two[2] + two[3], 0);
  for (int i = 0; i < 20; i++)
    ASSERT_EQ(bench.usePairs(1 + i % 4), virtio::NET_OK);
}

// As Linux does it: the command is there before the device has begun.
TEST(TapJailed, PairsAskedForBeforeItHasBegunAreAttachedToTheTap) {
  Bench bench(2);
  for (int i = 0; i < 5; i++) {
    bench.device->reset();
    EXPECT_EQ(bench.activateWithPairs(2), virtio::NET_OK);
    auto both = bench.spread(64);
    EXPECT_GT(both[0], 0);
    EXPECT_GT(both[1], 0);
    EXPECT_EQ(bench.device->host.resetsAsked, 0);
  }
}

// What a pair sends makes the tap send the answers to the same pair.
TEST(TapJailed, AFlowComesBackByThePairItWasSentFrom) {
  Bench bench(2);
  EXPECT_EQ(bench.usePairs(2), virtio::NET_OK);
  for (uint16_t pair : {1, 0, 1}) {
    for (uint32_t port = 20000; port < 20016; port++)
      bench.send(*bench.device, testing::udpFrame(OTHER, OWN, port), pair);
    for (int i = 0; i < 16; i++)
      bench.waitForFrame();
    auto counts = bench.spread(16, 20000);
    EXPECT_EQ(counts[pair], 16);
  }
}

TEST(TapJailed, AResetGoesBackToOnePair) {
  Bench bench(3);
  EXPECT_EQ(bench.usePairs(3), virtio::NET_OK);
  bench.spread(30);
  bench.device->reset();
  bench.activate(*bench.device, testing::FEATURES | testing::OFFLOADS | virtio::NET_F_MQ);
  EXPECT_EQ(bench.spread(30)[0], 30);
}

// A process before this one may have attached and detached them since it asked.
TEST(TapJailed, AfterATakeOverQueuesAreAsTheDriverHasThem) {
  for (uint16_t before : {1, 3}) {
    Bench bench(3);
    EXPECT_EQ(bench.usePairs(before), virtio::NET_OK);
    bench.device->reset();
    bench.device->device().takeOverRequest().send().ignoreResult().wait(bench.device->io.waitScope);
    bench.activate(*bench.device, testing::FEATURES | testing::OFFLOADS | virtio::NET_F_MQ);
    EXPECT_EQ(bench.spread(30)[0], 30);
    EXPECT_EQ(bench.usePairs(3), virtio::NET_OK);
    auto all = bench.spread(64);
    for (uint16_t i = 0; i < 3; i++)
      EXPECT_GT(all[i], 0) << i;
  }
}

// Without receive buffers it is found out by the next frame sent.
TEST(TapJailed, ATapThatIsRemovedTakesTheLinkDown) {
  for (bool buffers : {false, true}) {
    Bench bench(1);
    if (buffers) bench.offer(*bench.device, 10, 1536);
    bench.tap.remove();
    if (!buffers) bench.send(*bench.device, frame(OTHER, OWN, 60, 0));
    bench.device->waitUntil([&] { return bench.device->host.configChanges.size() == 1; });
    auto& change = bench.device->host.configChanges[0];
    EXPECT_EQ(change.offset, offsetof(virtio::NetConfigSpace, status));
    EXPECT_EQ(change.data[0], 0);
    for (int i = 0; i < 100; i++)
      bench.send(*bench.device, frame(OTHER, OWN, 60, i));
    bench.waitForSent(*bench.device, 100 + !buffers);
  }
}

}  // namespace
}  // namespace troupe::net
