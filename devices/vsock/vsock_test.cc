// What a well-behaved guest and well-behaved programs of the host see.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "devices/vsock/testing/vsock_bench.h"

namespace troupe::vsock {
namespace {

using testing::CREDIT;
using testing::FORWARDED_PORT;
using testing::GUEST_CID;
using testing::noise;
using testing::VsockBench;
using testing::Where;

class Vsock: public ::testing::TestWithParam<Where> {
 protected:
  Vsock() : bench(GetParam()) { bench.start(); }
  VsockBench bench;
};

INSTANTIATE_TEST_SUITE_P(Device, Vsock, ::testing::Values(Where::IN_PROCESS, Where::IN_JAIL),
                         [](auto& info) {
                           return info.param == Where::IN_PROCESS ? "InProcess" : "InJail";
                         });

TEST_P(Vsock, DescribesASocketDeviceWithItsCid) {
  auto response = bench.device().describe();
  auto info = response.getInfo();
  EXPECT_EQ(info.getDeviceType(), virtio::ID_SOCKET);
  EXPECT_EQ(info.getQueueSizes().size(), 3);  // §5.10.2
  EXPECT_TRUE(info.getFeatures() & F_STREAM);
  uint64_t cid;
  ASSERT_EQ(info.getConfig().size(), sizeof(cid));  // §5.10.4
  memcpy(&cid, info.getConfig().begin(), sizeof(cid));
  EXPECT_EQ(cid, GUEST_CID);
  EXPECT_EQ(info.getConfigWriteMask()[0], 0);
}

TEST_P(Vsock, GuestReachesThePortItAsksFor) {
  auto host = bench.connectOut(1024, 52);
  EXPECT_EQ(bench.connector->lastCid, HOST_CID);
  bench.send(OP_RW, 1024, 52, "to the host");
  EXPECT_EQ(bench.read(host, 11), "to the host");
  bench.write(host, "to the guest");
  auto packet = bench.expect(OP_RW);
  EXPECT_EQ(packet.payload, "to the guest");
  EXPECT_EQ(packet.header.sourceCid, HOST_CID);
  EXPECT_EQ(packet.header.sourcePort, 52);
  EXPECT_EQ(packet.header.destinationPort, 1024);
  EXPECT_EQ(packet.header.forwarded, 11);
  EXPECT_EQ(packet.header.bufferSize, 256 << 10);
}

TEST_P(Vsock, GuestGetsAResetWhereNobodyListens) {
  bench.send(OP_REQUEST, 1024, 4000);
  EXPECT_EQ(bench.expect(OP_RST).header.sourcePort, 4000);
  EXPECT_EQ(bench.connector->questions, 1);
}

TEST_P(Vsock, GuestGetsAResetWhenTheConnectorFails) {
  bench.connector->fails = true;
  bench.send(OP_REQUEST, 1024, 52);
  bench.expect(OP_RST);
}

TEST_P(Vsock, ConnectorIsAskedForOtherCidsToo) {
  auto header = VsockBench::header(OP_REQUEST, 1024, 52);
  header.destinationCid = 77;
  bench.send(header);
  EXPECT_EQ(bench.expect(OP_RESPONSE).header.sourceCid, 77);
  EXPECT_EQ(bench.connector->lastCid, 77);
  header.op = OP_RW;
  header.length = 2;
  bench.send(header, "hi");
  EXPECT_EQ(bench.read(bench.connector->ends[0], 2), "hi");
}

TEST_P(Vsock, ClientOfTheHybridSocketSaysConnect) {
  auto client = bench.hybrid.connect();
  bench.write(client, "CONNECT 1234\nright behind it");
  auto request = bench.expect(OP_REQUEST).header;
  EXPECT_EQ(request.destinationPort, 1234);
  EXPECT_EQ(request.sourceCid, HOST_CID);
  EXPECT_EQ(request.type, TYPE_STREAM);
  bench.send(OP_RESPONSE, 1234, request.sourcePort);
  auto ok = kj::str("OK ", uint32_t(request.sourcePort), "\n");
  EXPECT_EQ(bench.read(client, ok.size()), ok.cStr());
  EXPECT_EQ(bench.expect(OP_RW).payload, "right behind it");
  bench.send(OP_RW, 1234, request.sourcePort, "answer");
  EXPECT_EQ(bench.read(client, 6), "answer");
}

TEST_P(Vsock, ClientWhomTheGuestRefusesIsHungUpOn) {
  auto client = bench.hybrid.connect();
  bench.write(client, "connect 1234\n");
  auto request = bench.expect(OP_REQUEST).header;
  bench.send(OP_RST, 1234, request.sourcePort);
  EXPECT_EQ(bench.read(client, 1), "");
}

TEST_P(Vsock, ClientOfAForwardedPortIsConnectedAtOnce) {
  auto client = bench.forwarded.connect();
  uint32_t port = bench.acceptIn();
  bench.write(client, "hello");
  auto packet = bench.expect(OP_RW);
  EXPECT_EQ(packet.payload, "hello");
  EXPECT_EQ(packet.header.destinationPort, FORWARDED_PORT);
  bench.send(OP_RW, FORWARDED_PORT, port, "hello yourself");
  EXPECT_EQ(bench.read(client, 14), "hello yourself");
}

TEST_P(Vsock, ClientsThatCameBeforeTheDriverWait) {
  bench.device().reset();
  auto client = bench.forwarded.connect();
  bench.device().settle();
  bench.restart();
  bench.acceptIn();
}

TEST_P(Vsock, MegabytesToTheGuestArriveInOrder) {
  auto host = bench.connectOut(1024, 52);
  auto bytes = noise(4 << 20);
  std::string got;
  size_t written = 0;
  uint32_t told = 0;
  bench.device().waitUntil([&] {
    ssize_t part = write(host, bytes.data() + written, bytes.size() - written);
    if (part > 0) written += size_t(part);
    while (true) {
      KJ_IF_MAYBE (packet, bench.receiveIfAny()) {
        if (packet->header.op != OP_RW) continue;
        got += packet->payload;
      } else {
        break;
      }
    }
    if (got.size() - told > CREDIT / 4) {
      told = uint32_t(got.size());
      auto update = VsockBench::header(OP_CREDIT_UPDATE, 1024, 52);
      update.forwarded = told;
      bench.send(update);
    }
    return got.size() == bytes.size();
  });
  EXPECT_TRUE(got == bytes);
}

TEST_P(Vsock, MegabytesToTheHostArriveInOrder) {
  auto host = bench.connectOut(1024, 52);
  auto bytes = noise(4 << 20);
  std::string got;
  size_t sent = 0;
  uint32_t forwarded = 0;
  bench.device().waitUntil([&] {
    size_t part = kj::min(size_t(60000), bytes.size() - sent);
    if (part > 0 && sent + part - forwarded <= CREDIT) {
      bench.send(OP_RW, 1024, 52, bytes.substr(sent, part));
      sent += part;
    }
    char some[50000];
    ssize_t read = ::read(host, some, sizeof(some));
    if (read > 0) got.append(some, size_t(read));
    KJ_IF_MAYBE (packet, bench.receiveIfAny()) {
      forwarded = packet->header.forwarded;
    }
    return got.size() == bytes.size();
  });
  EXPECT_TRUE(got == bytes);
}

TEST_P(Vsock, NoMoreIsReadThanTheGuestGaveCreditFor) {
  auto client = bench.forwarded.connect();
  uint32_t port = bench.acceptIn(/*bufferSize=*/1000);
  bench.write(client, noise(5000));
  EXPECT_EQ(bench.expect(OP_RW).payload.size(), 1000);
  bench.expect(OP_CREDIT_REQUEST);
  bench.expectNothing();
  auto update = VsockBench::header(OP_CREDIT_UPDATE, FORWARDED_PORT, port);
  update.bufferSize = 1000;
  update.forwarded = 600;
  bench.send(update);
  EXPECT_EQ(bench.expect(OP_RW).payload.size(), 600);
}

TEST_P(Vsock, CreditRequestIsAnswered) {
  auto host = bench.connectOut(1024, 52);
  bench.send(OP_RW, 1024, 52, "four");
  bench.send(OP_CREDIT_REQUEST, 1024, 52);
  auto update = bench.expect(OP_CREDIT_UPDATE).header;
  EXPECT_EQ(update.forwarded, 4);
  EXPECT_EQ(update.bufferSize, 256 << 10);
}

TEST_P(Vsock, HostEndsItsSendingAndStillReads) {
  auto client = bench.forwarded.connect();
  uint32_t port = bench.acceptIn();
  bench.write(client, "last");
  KJ_SYSCALL(shutdown(client, SHUT_WR));
  EXPECT_EQ(bench.expect(OP_RW).payload, "last");
  EXPECT_EQ(bench.expect(OP_SHUTDOWN).header.flags, SHUTDOWN_SEND);
  bench.send(OP_RW, FORWARDED_PORT, port, "answer");
  EXPECT_EQ(bench.read(client, 6), "answer");
  bench.send(OP_RW, FORWARDED_PORT, port, "more");
  EXPECT_EQ(bench.read(client, 4), "more");
}

TEST_P(Vsock, GuestEndsItsSendingAndStillReads) {
  auto host = bench.connectOut(1024, 52);
  bench.send(OP_RW, 1024, 52, "last");
  auto end = VsockBench::header(OP_SHUTDOWN, 1024, 52);
  end.flags = SHUTDOWN_SEND;
  bench.send(end);
  EXPECT_EQ(bench.read(host, 100), "last");
  bench.write(host, "answer");
  EXPECT_EQ(bench.expect(OP_RW).payload, "answer");
}

TEST_P(Vsock, GuestEndsItsReceivingAndTheHostCannotWrite) {
  auto host = bench.connectOut(1024, 52);
  auto end = VsockBench::header(OP_SHUTDOWN, 1024, 52);
  end.flags = SHUTDOWN_RECEIVE;
  bench.send(end);
  bench.device().waitUntil(
      [&] { return send(host, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EPIPE; });
  bench.send(OP_RW, 1024, 52, "still");
  EXPECT_EQ(bench.read(host, 5), "still");
}

TEST_P(Vsock, HostClosesAndTheGuestConfirms) {
  auto client = bench.forwarded.connect();
  uint32_t port = bench.acceptIn();
  bench.write(client, "bye");
  client = nullptr;
  EXPECT_EQ(bench.expect(OP_RW).payload, "bye");
  auto end = bench.receive();
  while (end.header.op == OP_SHUTDOWN && end.header.flags != SHUTDOWN_BOTH)
    end = bench.receive();
  EXPECT_EQ(end.header.op, OP_SHUTDOWN);
  EXPECT_EQ(end.header.flags, SHUTDOWN_BOTH);
  bench.send(OP_RST, FORWARDED_PORT, port);
  bench.expectNothing();
}

TEST_P(Vsock, GuestClosesAndTheHostSeesAllAndTheEnd) {
  auto host = bench.connectOut(1024, 52);
  bench.send(OP_RW, 1024, 52, "bye");
  auto end = VsockBench::header(OP_SHUTDOWN, 1024, 52);
  end.flags = SHUTDOWN_BOTH;
  bench.send(end);
  bench.expect(OP_RST);
  EXPECT_EQ(bench.read(host, 100), "bye");
  bench.connectOut(1024, 52);  // the ports are free again
}

TEST_P(Vsock, WhatTheGuestSentBeforeItClosedReachesASlowReader) {
  auto host = bench.connectOut(1024, 52);
  auto bytes = noise(250 << 10);
  for (size_t at = 0; at < bytes.size(); at += 50 << 10)
    bench.send(OP_RW, 1024, 52, bytes.substr(at, 50 << 10));
  auto end = VsockBench::header(OP_SHUTDOWN, 1024, 52);
  end.flags = SHUTDOWN_BOTH;
  bench.send(end);
  EXPECT_TRUE(bench.read(host, bytes.size() + 1) == bytes);
}

TEST_P(Vsock, WhatTheHostSentBeforeItClosedReachesTheGuest) {
  auto client = bench.forwarded.connect();
  bench.acceptIn();
  auto bytes = noise(100 << 10);
  bench.write(client, bytes);
  client = nullptr;
  std::string got;
  for (;;) {
    auto packet = bench.receive();
    if (packet.header.op == OP_SHUTDOWN && packet.header.flags == SHUTDOWN_BOTH) break;
    got += packet.payload;
  }
  EXPECT_TRUE(got == bytes);
}

TEST_P(Vsock, ResetOfTheDeviceEndsEveryStream) {
  auto host = bench.connectOut(1024, 52);
  auto client = bench.forwarded.connect();
  bench.acceptIn();
  bench.device().reset();
  EXPECT_TRUE(bench.atEnd(host));
  EXPECT_TRUE(bench.atEnd(client));
  bench.restart();
  bench.connectOut(1024, 52);
}

TEST_P(Vsock, ThousandStreamsAtOnce) {
  bench.offer(100, 4096);
  kj::Vector<kj::AutoCloseFd> hosts;
  for (uint32_t i = 0; i < 1000; i++)
    hosts.add(bench.connectOut(10000 + i, 52));
  for (uint32_t i = 0; i < 1000; i++) {
    auto text = std::to_string(i);
    bench.send(OP_RW, 10000 + i, 52, text);
    ASSERT_EQ(bench.read(hosts[i], text.size()), text);
  }
}

}  // namespace
}  // namespace troupe::vsock
