// What a driver sends, up to the host's end of the socket.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "devices/net/testing/net_bench.h"

namespace troupe::net {
namespace {

using testing::Bytes;
using testing::concat;
using testing::frame;
using testing::NetBench;
using testing::OTHER;
using testing::OWN;
using testing::withHeader;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::readable;
using virtio::testing::writable;

virtio::NetHeader segments(uint16_t checksumStart = 34) {
  virtio::NetHeader header{};
  header.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  header.gsoType = virtio::NET_HDR_GSO_TCPV4;
  header.headerBytes = 54;
  header.gsoSize = 1448;
  header.checksumStart = checksumStart;
  header.checksumOffset = 16;
  return header;
}

NetBench::Options withHeaders(uint64_t features) {
  NetBench::Options options;
  options.headers = true;
  options.features = testing::FEATURES | features;
  return options;
}

TEST(Transmit, AFrameLeavesAsItIs) {
  NetBench bench;
  auto sent = frame(OTHER, OWN, 1514, 0x11);
  bench.send(sent);
  EXPECT_EQ(bench.waitForFrame(), sent);
  bench.waitForSent(1);
}

TEST(Transmit, TheDriverIsInterruptedWhenItAsked) {
  NetBench bench;
  bench.transmitter().wantInterrupts(true);
  bench.send(frame(OTHER, OWN, 60, 1));
  bench.device.waitForInterrupt(1);
  bench.waitForSent(1);
  bench.transmitter().wantInterrupts(false);
  bench.send(frame(OTHER, OWN, 60, 1));
  bench.waitForSent(1);
  EXPECT_FALSE(bench.device.interrupted(1));
}

TEST(Transmit, AFrameMayBeSplitAnyhow) {
  NetBench bench;
  auto sent = frame(OTHER, OWN, 300, 0x22);
  auto whole = withHeader({}, sent);
  for (size_t step : {1, 2, 5, 11, 12, 13, 53, 54, 55}) {
    kj::Vector<Buffer> buffers;
    auto& driver = bench.transmitter();
    for (size_t at = 0; at < whole.size(); at += step) {
      buffers.add(driver.readableBuffer(whole.slice(at, kj::min(at + step, whole.size()))));
    }
    while (buffers.size() > 256) {  // as many as the ring may hold: the rest goes in one
      auto rest = whole.slice(255 * step, whole.size());
      buffers.resize(255);
      buffers.add(driver.readableBuffer(rest));
    }
    driver.addIndirect(buffers);
    if (driver.shouldKick()) bench.device.kick(1);
    EXPECT_EQ(bench.waitForFrame(), sent) << step;
    bench.waitForSent(1);
  }
}

TEST(Transmit, ManyFramesKeepTheirOrder) {
  NetBench bench;
  uint32_t next = 0;
  for (int round = 0; round < 20; round++) {
    for (uint32_t i = 0; i < 100; i++)
      bench.send(frame(OTHER, OWN, 60 + (round * 100 + i) % 1000, i));
    for (uint32_t i = 0; i < 100; i++, next++)
      ASSERT_EQ(bench.waitForFrame().size(), 60 + next % 1000);
    bench.waitForSent(100);
  }
}

// Nothing waits in the device beside one frame, and none is lost.
TEST(Transmit, AHostThatTakesNothingHoldsTheRingUp) {
  NetBench bench;
  constexpr uint32_t COUNT = 200;
  for (uint32_t i = 0; i < COUNT; i++)
    bench.send(frame(OTHER, OWN, 9000, i));
  bench.device.settle();
  uint32_t done = bench.transmitter().usedIndex();
  EXPECT_LT(done, COUNT);
  for (uint32_t i = 0; i < COUNT; i++)
    ASSERT_EQ(bench.waitForFrame()[20], kj::byte(i));
  bench.waitForSent(COUNT);
}

TEST(Transmit, AStreamHasTheLengthBeforeEachFrame) {
  NetBench::Options options;
  options.socketType = SOCK_STREAM;
  NetBench bench(options);
  auto first = frame(OTHER, OWN, 60, 1);
  auto second = frame(OTHER, OWN, 65535, 2);
  bench.send(first);
  bench.send(second);
  kj::Vector<kj::byte> all;
  while (all.size() < 8 + first.size() + second.size())
    all.addAll(bench.waitForFrame());
  const kj::byte lengths[] = {0, 0, 0, 60, 0, 0, 0xff, 0xff};
  auto expected =
      concat(concat(kj::arrayPtr(lengths, 4), first), concat(kj::arrayPtr(lengths + 4, 4), second));
  EXPECT_TRUE(all.asPtr() == expected.asPtr());
}

// What the host got the beginning of it gets the end of, and nothing in between.
TEST(Transmit, AStreamThatIsFullLosesNothing) {
  NetBench::Options options;
  options.socketType = SOCK_STREAM;
  NetBench bench(options);
  constexpr uint32_t COUNT = 100;
  for (uint32_t i = 0; i < COUNT; i++)
    bench.send(frame(OTHER, OWN, 20000 + i, i));
  bench.device.settle();
  EXPECT_LT(bench.transmitter().usedIndex(), COUNT);
  kj::Vector<kj::byte> all;
  size_t at = 0;
  for (uint32_t i = 0; i < COUNT; i++) {
    auto expected = frame(OTHER, OWN, 20000 + i, i);
    while (all.size() - at < 4 + expected.size())
      all.addAll(bench.waitForFrame());
    ASSERT_EQ(all[at + 2] << 8 | all[at + 3], 20000 + i);
    ASSERT_TRUE(all.asPtr().slice(at + 4, at + 4 + expected.size()) == expected) << i;
    at += 4 + expected.size();
  }
  bench.waitForSent(COUNT);
}

// No later frame comes to push it.
TEST(Transmit, AStreamGetsTheEndOfTheLastFrameToo) {
  NetBench::Options options;
  options.socketType = SOCK_STREAM;
  NetBench bench(options);
  int least = 1;
  KJ_SYSCALL(setsockopt(bench.deviceSocket(), SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)));
  for (int i = 0; i < 10; i++) {
    bench.send(frame(OTHER, OWN, 60000, i));
    bench.waitForSent(1);
    bench.device.settle();  // it sleeps, with the rest of the frame
    for (size_t got = 0; got < 4 + 60000;)
      got += bench.waitForFrame().size();
  }
}

TEST(Transmit, HeadersReachAHostThatTakesThem) {
  NetBench bench(withHeaders(testing::OFFLOADS));
  auto header = segments();
  auto sent = frame(OTHER, OWN, 60000, 0x33);
  bench.send(header, sent);
  EXPECT_EQ(bench.waitForFrame(), withHeader(header, sent));
}

TEST(Transmit, NET01_FramesShorterThanTheirHeadersAreDropped) {
  NetBench bench;
  auto& driver = bench.transmitter();
  auto whole = withHeader({}, frame(OTHER, OWN, 14, 0));
  for (size_t bytes = 1; bytes < whole.size(); bytes++) {
    driver.add({driver.readableBuffer(whole.slice(0, bytes))});
    if (driver.shouldKick()) bench.device.kick(1);
    bench.waitForSent(1);
  }
  driver.add({writable(0x30000, 64)});  // none of it is readable
  bench.device.kick(1);
  bench.waitForSent(1);
  bench.send(frame(OTHER, OWN, 14, 0));
  EXPECT_EQ(bench.waitForFrame().size(), 14);
}

TEST(Transmit, NET01_FramesThatAreTooLongAreDropped) {
  NetBench bench;
  bench.send(frame(OTHER, OWN, MAX_FRAME_BYTES + 1, 0));
  auto& driver = bench.transmitter();
  kj::Vector<Buffer> gigabytes;
  for (int i = 0; i < 60; i++)
    gigabytes.add(readable(0, 60 << 20));
  driver.addIndirect(gigabytes);
  bench.device.kick(1);
  bench.waitForSent(2);
  EXPECT_TRUE(bench.nothingWasSent());
}

TEST(Transmit, NET01_WhatWasNotNegotiatedIsDropped) {
  NetBench bench(withHeaders(0));
  bench.send(segments(), frame(OTHER, OWN, 60000, 0));
  virtio::NetHeader checksum{};
  checksum.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  checksum.checksumStart = 34;
  bench.send(checksum, frame(OTHER, OWN, 100, 0));
  bench.waitForSent(2);
  EXPECT_TRUE(bench.nothingWasSent());
}

TEST(Transmit, NET01_ChecksumsThatLieElsewhereAndEmptySegmentsAreDropped) {
  NetBench bench(withHeaders(testing::OFFLOADS));
  bench.send(segments(59999), frame(OTHER, OWN, 60000, 0));
  bench.send(segments(6), frame(OTHER, OWN, 60000, 0));
  auto empty = segments();
  empty.gsoSize = 0;
  bench.send(empty, frame(OTHER, OWN, 60000, 0));
  bench.waitForSent(3);
  EXPECT_TRUE(bench.nothingWasSent());
}

TEST(Transmit, NET04_ForeignSourcesAndTagsAreDropped) {
  auto options = withHeaders(testing::OFFLOADS);
  options.device.spoofFilter = true;
  NetBench bench(options);
  bench.send(frame(OTHER, OTHER, 60, 0));
  auto tagged = frame(OTHER, OWN, 60, 0);
  tagged[12] = 0x81;
  tagged[13] = 0x00;
  bench.send(tagged);
  auto arp = frame(OTHER, OWN, 60, 0);
  arp[12] = 0x08;
  arp[13] = 0x06;
  bench.send(arp);
  memcpy(arp.begin() + 22, OWN.bytes, 6);
  virtio::NetHeader checksum{};
  checksum.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  checksum.checksumStart = 20;
  checksum.checksumOffset = 2;
  bench.send(checksum, arp);
  bench.waitForSent(4);
  EXPECT_TRUE(bench.nothingWasSent());
  bench.send(arp);
  EXPECT_EQ(bench.waitForFrame().size(), sizeof(virtio::NetHeader) + arp.size());
}

// What was checked is what leaves, whatever a second vCPU writes meanwhile.
TEST(Transmit, TOC02_NET04_SourcesThatChangeWhileTheyAreCheckedDoNotGetOut) {
  NetBench::Options options;
  options.device.spoofFilter = true;
  NetBench bench(options);
  auto& driver = bench.transmitter();
  auto buffer = driver.readableBuffer(withHeader({}, frame(OTHER, OWN, 60, 0)));
  kj::byte* source = bench.ram.bytes(buffer.address + 12 + 6, 1).begin();
  std::atomic<bool> over{false};
  std::thread vcpu([&] {
    while (!over) {
      virtio::storeWord<uint8_t>(source, OTHER.bytes[0] ^ 0x80);
      virtio::storeWord<uint8_t>(source, OWN.bytes[0]);
    }
  });
  {
    KJ_DEFER({
      over = true;
      vcpu.join();
    });
    uint32_t got = 0;
    for (int i = 0; i < 3000; i++) {
      driver.add({buffer});
      if (driver.shouldKick()) bench.device.kick(1);
      bench.waitForSent(1);
      KJ_IF_MAYBE (sent, bench.peer().receive()) {
        ASSERT_EQ((*sent)[6], OWN.bytes[0]);
        got++;
      }
    }
    EXPECT_GT(got, 0);
  }
}

TEST(Transmit, RatesHoldTheRingUp) {
  NetBench::Options options;
  options.device.transmitRate.framesPerSecond = 100;
  options.device.transmitRate.burstFrames = 10;
  NetBench bench(options);
  auto begun = std::chrono::steady_clock::now();
  for (uint32_t i = 0; i < 20; i++)
    bench.send(frame(OTHER, OWN, 60, i));
  bench.waitForSent(20);
  // A tenth of a second, but for what is taken beyond the bucket at the end.
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(50));
}

TEST(Transmit, ACaptureHasWhatWasSentAndNothingElse) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("pcap", MFD_CLOEXEC));
  kj::AutoCloseFd file(fd);
  NetBench::Options options;
  options.capture = file;
  options.captureFrameBytes = 1000;
  options.device.spoofFilter = true;
  NetBench bench(options);
  bench.send(frame(OTHER, OTHER, 100, 1));  // dropped
  bench.send(frame(OTHER, OWN, 2000, 2));
  EXPECT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 2000, 2));
  bench.waitForSent(2);
  kj::byte content[4096];
  ASSERT_EQ(pread(file, content, sizeof(content), 0), 24 + 16 + 1000);
  EXPECT_EQ(memcmp(content + 40, frame(OTHER, OWN, 2000, 2).begin(), 1000), 0);
  bench.peer().close();
  for (int i = 0; i < 10; i++)
    bench.send(frame(OTHER, OWN, 100, 3));  // nobody gets them
  bench.waitForSent(10);
  EXPECT_EQ(pread(file, content, sizeof(content), 0), 24 + 16 + 1000);
}

TEST(Transmit, AHostThatIsGoneTakesTheLinkDownAndFramesAreDropped) {
  for (int type : {SOCK_SEQPACKET, SOCK_STREAM}) {
    NetBench::Options options;
    options.socketType = type;
    NetBench bench(options);
    bench.peer().close();
    bench.device.waitUntil([&] { return bench.status() == 0; });
    for (uint32_t i = 0; i < 50; i++)
      bench.send(frame(OTHER, OWN, 60, i));
    bench.waitForSent(50);
    bench.device.reset();
    bench.activate(bench.device, testing::FEATURES);
    bench.send(frame(OTHER, OWN, 60, 0));
    bench.waitForSent(1);
    EXPECT_EQ(bench.device.host.resetsAsked, 0);
  }
}

}  // namespace
}  // namespace troupe::net
