// What a driver receives, from the host's end of the socket on.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include "devices/net/testing/net_bench.h"

namespace troupe::net {
namespace {

using testing::BROADCAST;
using testing::Bytes;
using testing::concat;
using testing::frame;
using testing::NetBench;
using testing::OTHER;
using testing::OWN;
using testing::withHeader;
using virtio::testing::Buffer;
using virtio::testing::FakeRam;

constexpr uint32_t HEADER_BYTES = sizeof(virtio::NetHeader);

NetBench::Options withFeatures(uint64_t features, bool headers = false) {
  NetBench::Options options;
  options.features = features;
  options.headers = headers;
  return options;
}

// Sends it as soon as there is room.
void sendSoon(NetBench& bench, kj::ArrayPtr<const kj::byte> bytes) {
  bench.device.waitUntil([&] { return bench.peer().send(bytes); });
}

TEST(Receive, AFrameArrivesAsItIs) {
  NetBench bench;
  bench.offer(4, 2048);
  auto sent = frame(OWN, OTHER, 1514, 0x11);
  bench.peer().send(sent);
  auto arrival = bench.waitForArrival();
  EXPECT_EQ(arrival.frame, sent);
  EXPECT_EQ(arrival.header.bufferCount, 1);
  EXPECT_EQ(arrival.header.flags, 0);
}

TEST(Receive, TheDriverIsInterruptedWhenItAsked) {
  NetBench bench;
  bench.offer(4, 2048);
  bench.receiver().wantInterrupts(true);
  bench.peer().send(frame(OWN, OTHER, 60, 1));
  bench.device.waitForInterrupt(0);
  bench.waitForArrival();
  bench.receiver().wantInterrupts(false);
  bench.peer().send(frame(OWN, OTHER, 60, 1));
  bench.waitForArrival();
  EXPECT_FALSE(bench.device.interrupted(0));
}

TEST(Receive, AFrameSpansBuffersThatCanBeMerged) {
  NetBench bench;
  bench.offer(100, 1536);
  for (size_t bytes : {60, 1514, 1524, 1525, 9000, 65000, 60, 65000, 1525, 30000}) {
    auto sent = frame(OWN, OTHER, bytes, bytes);
    sendSoon(bench, sent);
    auto arrival = bench.waitForArrival();
    EXPECT_EQ(arrival.frame, sent) << bytes;
    uint32_t buffers = (HEADER_BYTES + bytes + 1535) / 1536;
    EXPECT_EQ(arrival.header.bufferCount, buffers) << bytes;
    for (size_t i = 0; i + 1 < arrival.written.size(); i++)
      EXPECT_EQ(arrival.written[i], 1536);  // full, but for the last
    bench.offer(buffers, 1536);
  }
}

// §5.1.6.3.1: without merging, each buffer has room for the largest frame.
TEST(Receive, WithoutMergingAFrameIsInOneBuffer) {
  NetBench bench(withFeatures(testing::FEATURES & ~virtio::NET_F_MRG_RXBUF));
  bench.offer(2, 1526);
  sendSoon(bench, frame(OWN, OTHER, 1515, 0));  // too long: dropped
  sendSoon(bench, frame(OWN, OTHER, 1514, 2));
  auto arrival = bench.waitForArrival();
  EXPECT_EQ(arrival.frame, frame(OWN, OTHER, 1514, 2));
  EXPECT_EQ(arrival.header.bufferCount, 1);
}

TEST(Receive, ABufferMayBeSplitAnyhow) {
  NetBench bench(withFeatures(testing::FEATURES & ~virtio::NET_F_MRG_RXBUF));
  auto& driver = bench.receiver();
  for (uint32_t step : {1, 3, 11, 12, 13, 25, 26, 27}) {
    constexpr uint32_t BYTES = 250;
    uint64_t address = bench.ram.allocate(BYTES);
    kj::Vector<Buffer> buffers;
    for (uint32_t at = 0; at < BYTES; at += step)
      buffers.add(Buffer{address + at, kj::min(step, BYTES - at), true});
    driver.addIndirect(buffers);
    auto sent = frame(OWN, OTHER, 200, step);
    bench.peer().send(sent);
    EXPECT_EQ(bench.device.waitForUsed(0, driver).written, HEADER_BYTES + 200);
    auto got = bench.ram.bytes(address + HEADER_BYTES, 200);
    EXPECT_TRUE(got == sent.asPtr()) << step;
    // What nobody wrote is as it was.
    for (kj::byte rest : bench.ram.bytes(address + HEADER_BYTES + 200, 38))
      EXPECT_EQ(rest, FakeRam::POISON);
  }
}

TEST(Receive, NET02_BuffersOfExactlyAHeaderAndOneByteAreFilled) {
  NetBench bench;
  bench.offer(3, HEADER_BYTES);
  bench.offer(20, HEADER_BYTES + 1);
  auto sent = frame(OWN, OTHER, 200, 0x77);
  bench.peer().send(sent);
  auto arrival = bench.waitForArrival();
  EXPECT_EQ(arrival.frame, sent);
  EXPECT_EQ(arrival.written.size(), 3 + (HEADER_BYTES + 200 - 3 * HEADER_BYTES + 12) / 13);
}

TEST(Receive, NET02_ABufferTooSmallForAHeaderNeedsAResetWhichHeals) {
  for (uint32_t bytes : {1u, HEADER_BYTES - 1}) {
    NetBench bench;
    bench.offer(1, bytes);
    bench.peer().send(frame(OWN, OTHER, 60, 1));
    bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
    EXPECT_EQ(bench.receiver().usedIndex(), 0);
    bench.device.reset();
    bench.activate(bench.device, testing::FEATURES);
    bench.offer(1, 2048);
    EXPECT_EQ(bench.waitForArrival().frame.size(), 60);
  }
}

TEST(Receive, NET02_AThousandFragmentsAreFilled) {
  NetBench::Options options;
  options.ringSize = 1024;
  NetBench bench(options);
  auto& driver = bench.receiver();
  constexpr uint32_t PIECES = 1024;
  uint64_t address = bench.ram.allocate(PIECES * 64);
  kj::Vector<Buffer> buffers;
  for (uint32_t i = 0; i < PIECES; i++)
    buffers.add(Buffer{address + i * 64, 64, true});
  driver.addIndirect(buffers);
  for (size_t bytes : {65000, 65000}) {  // the second is expected to be large
    auto sent = frame(OWN, OTHER, bytes, bytes);
    sendSoon(bench, sent);
    EXPECT_EQ(bench.device.waitForUsed(0, driver).written, HEADER_BYTES + bytes);
    EXPECT_TRUE(bench.ram.bytes(address + HEADER_BYTES, bytes) == sent.asPtr());
    driver.addIndirect(buffers);
    bench.device.kick(0);
  }
}

TEST(Receive, NET02_AThousandBuffersAreFilled) {
  NetBench::Options options;
  options.ringSize = 1024;
  NetBench bench(options);
  for (int round = 0; round < 3; round++) {
    bench.offer(round == 0 ? 1024 : 64, 1024);
    auto sent = frame(OWN, OTHER, 65000, round);
    sendSoon(bench, sent);
    EXPECT_EQ(bench.waitForArrival().frame, sent);
  }
}

TEST(Receive, NET05_WithoutBuffersNothingIsReadAndWithThemAllArrives) {
  NetBench bench;
  uint32_t sent = 0;
  while (bench.peer().send(frame(OWN, OTHER, 1000, sent)))
    sent++;
  bench.device.settle();
  EXPECT_FALSE(bench.peer().send(frame(OWN, OTHER, 1000, 0))) << "it was read";
  EXPECT_EQ(bench.receiver().usedIndex(), 0);
  for (uint32_t i = 0; i < sent; i++) {
    if (i % 16 == 0) bench.offer(16, 1536);
    ASSERT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 1000, i)) << i;
  }
}

// The ring runs empty and is filled again, over and over, while the host never stops.
TEST(Receive, NET05_AFloodGoesOnAfterEachRefill) {
  NetBench bench;
  uint32_t sent = 0, arrived = 0;
  for (int round = 0; round < 200; round++) {
    while (bench.peer().send(frame(OWN, OTHER, 60 + sent % 2000, sent)))
      sent++;
    bench.offer(1 + round % 7, 2048);
    for (int i = 0; i < 1 + round % 7; i++) {
      auto arrival = bench.waitForArrival();
      ASSERT_EQ(arrival.frame, frame(OWN, OTHER, 60 + arrived % 2000, arrived));
      arrived++;
      if (arrival.header.bufferCount > 1) i += arrival.header.bufferCount - 1;
    }
  }
}

// It has been read already when its length is known.
TEST(Receive, NET05_AFrameThatNeedsMoreBuffersWaitsForThem) {
  NetBench bench;
  bench.offer(2, 1536);
  auto sent = frame(OWN, OTHER, 9000, 0x55);
  bench.peer().send(sent);
  bench.device.settle();
  EXPECT_EQ(bench.receiver().usedIndex(), 0);
  bench.offer(4, 1536);
  EXPECT_EQ(bench.waitForArrival().frame, sent);
}

// A driver that never offers so many shall not be deaf for ever.
TEST(Receive, NET05_AFrameThatNeverGetsTheBuffersItNeedsIsDropped) {
  NetBench bench;
  bench.offer(2, 1536);
  bench.peer().send(frame(OWN, OTHER, 9000, 0x55));
  bench.peer().send(frame(OWN, OTHER, 60, 0x66));
  EXPECT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 60, 0x66));
}

TEST(Receive, NET05_AFrameLongerThanAWholeRingIsDroppedAtOnce) {
  NetBench::Options options;
  options.ringSize = 4;
  NetBench bench(options);
  bench.offer(4, 1536);
  bench.peer().send(frame(OWN, OTHER, 9000, 0x55));
  bench.peer().send(frame(OWN, OTHER, 60, 0x66));
  EXPECT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 60, 0x66));
}

// A peer that somebody took over says what it likes.
TEST(Receive, NET06_MessagesThatAreNoFramesAreDropped) {
  for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    bool headers = type == SOCK_DGRAM;
    auto options = withFeatures(testing::FEATURES, headers);
    options.socketType = type;
    NetBench bench(options);
    bench.offer(100, 2048);
    for (size_t bytes = 0; bytes < (headers ? HEADER_BYTES : 0) + 14; bytes++)
      sendSoon(bench, kj::heapArray<kj::byte>(bytes));
    sendSoon(bench, kj::heapArray<kj::byte>(100000));  // longer than any frame
    auto good = frame(OWN, OTHER, 60, 1);
    sendSoon(bench, headers ? withHeader({}, good) : kj::mv(good));
    EXPECT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 60, 1));
  }
}

TEST(Receive, NET06_HeadersTheDriverDidNotAgreeToAreDropped) {
  NetBench bench(withFeatures(testing::FEATURES, /*headers=*/true));
  bench.offer(100, 2048);
  auto sent = frame(OWN, OTHER, 1000, 0);
  virtio::NetHeader header{};
  header.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  header.checksumStart = 34;
  bench.peer().send(withHeader(header, sent));
  header = {};
  header.gsoType = virtio::NET_HDR_GSO_TCPV4;
  header.gsoSize = 100;
  bench.peer().send(withHeader(header, sent));
  header.gsoType = 0xff;
  bench.peer().send(withHeader(header, sent));
  header = {};
  header.flags = 0xfe;  // bits nobody knows are ignored
  header.bufferCount = 0xffff;
  bench.peer().send(withHeader(header, frame(OWN, OTHER, 60, 9)));
  auto arrival = bench.waitForArrival();
  EXPECT_EQ(arrival.frame, frame(OWN, OTHER, 60, 9));
  EXPECT_EQ(arrival.header.flags, 0);
  EXPECT_EQ(arrival.header.bufferCount, 1);
}

TEST(Receive, NET06_AStreamWithLengthsThatCannotBeTakesTheLinkDown) {
  for (kj::byte high : {0x00, 0x01, 0xff}) {
    NetBench::Options options;
    options.socketType = SOCK_STREAM;
    NetBench bench(options);
    bench.offer(10, 2048);
    const kj::byte good[] = {0, 0, 0, 60};
    bench.peer().send(concat(good, frame(OWN, OTHER, 60, 1)));
    EXPECT_EQ(bench.waitForArrival().frame.size(), 60);
    const kj::byte bad[] = {high, kj::byte(high == 0 ? 2 : 0), 0, 0};
    bench.peer().send(concat(bad, frame(OWN, OTHER, 60, 1)));
    bench.device.waitUntil([&] { return bench.status() == 0; });
    EXPECT_TRUE(bench.takeArrival() == nullptr);
  }
}

TEST(Receive, AStreamIsCutIntoItsFramesWhereverItIsCut) {
  NetBench::Options options;
  options.socketType = SOCK_STREAM;
  NetBench bench(options);
  bench.offer(200, 1536);
  kj::Vector<kj::byte> stream;
  for (uint32_t i = 0; i < 40; i++) {
    auto one = frame(OWN, OTHER, 60 + i * 90, i);
    const kj::byte length[] = {0, 0, kj::byte(one.size() >> 8), kj::byte(one.size())};
    stream.addAll(concat(length, one));
  }
  uint32_t arrived = 0;
  for (size_t at = 0, step = 1; at < stream.size(); at += step, step = step * 3 % 7919 + 1) {
    step = kj::min(step, stream.size() - at);
    sendSoon(bench, stream.asPtr().slice(at, at + step));
    for (;;) {
      KJ_IF_MAYBE (arrival, bench.takeArrival()) {
        ASSERT_EQ(arrival->frame, frame(OWN, OTHER, 60 + arrived * 90, arrived));
        arrived++;
      } else {
        break;
      }
    }
  }
  for (; arrived < 40; arrived++)
    ASSERT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 60 + arrived * 90, arrived));
}

TEST(Receive, LargeSegmentsReachADriverThatAgreed) {
  NetBench bench(withFeatures(testing::FEATURES | testing::OFFLOADS, /*headers=*/true));
  bench.offer(60, 1536);
  virtio::NetHeader header{};
  header.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  header.gsoType = virtio::NET_HDR_GSO_TCPV4;
  header.headerBytes = 54;
  header.gsoSize = 1448;
  header.checksumStart = 34;
  header.checksumOffset = 16;
  auto sent = frame(OWN, OTHER, 60000, 4);
  sendSoon(bench, withHeader(header, sent));
  auto arrival = bench.waitForArrival();
  EXPECT_EQ(arrival.frame, sent);
  header.bufferCount = 40;
  EXPECT_EQ(memcmp(&arrival.header, &header, sizeof(header)), 0);
}

TEST(Receive, RatesLeaveFramesWithTheHost) {
  NetBench::Options options;
  options.device.receiveRate.bytesPerSecond = 100000;
  options.device.receiveRate.burstBytes = 1000;
  NetBench bench(options);
  bench.offer(20, 1536);
  auto begun = std::chrono::steady_clock::now();
  for (uint32_t i = 0; i < 12; i++)
    bench.peer().send(frame(OWN, OTHER, 1000, i));
  for (uint32_t i = 0; i < 12; i++)
    EXPECT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 1000, i));
  // A tenth of a second, but for what is taken beyond the bucket at the end.
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(50));
}

TEST(Receive, ACaptureHasWhatArrived) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("pcap", MFD_CLOEXEC));
  kj::AutoCloseFd file(fd);
  NetBench::Options options;
  options.capture = file;
  NetBench bench(options);
  bench.offer(10, 1536);
  auto sent = frame(OWN, OTHER, 5000, 3);
  bench.peer().send(sent);
  EXPECT_EQ(bench.waitForArrival().frame, sent);
  kj::byte content[8192];
  ASSERT_EQ(pread(file, content, sizeof(content), 0), 24 + 16 + 5000);
  EXPECT_EQ(memcmp(content + 40, sent.begin(), 5000), 0);
}

TEST(Receive, FramesForOthersAreDroppedOnceTheDriverSaysSo) {
  NetBench bench;
  bench.offer(10, 1536);
  EXPECT_EQ(bench.command(virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_PROMISC, uint8_t(0)),
            virtio::NET_OK);
  bench.peer().send(frame(OTHER, OTHER, 60, 1));
  bench.peer().send(frame(BROADCAST, OTHER, 60, 2));
  bench.peer().send(frame(OWN, OTHER, 60, 3));
  EXPECT_EQ(bench.waitForArrival().frame, frame(BROADCAST, OTHER, 60, 2));
  EXPECT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 60, 3));
}

}  // namespace
}  // namespace troupe::net
