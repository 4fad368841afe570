// A guest that breaks the rules of sockets, clients of the host that do, and broken rings.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>
#include <thread>

#include "devices/vsock/testing/vsock_bench.h"

namespace troupe::vsock {
namespace {

using testing::CREDIT;
using testing::FORWARDED_PORT;
using testing::GUEST_CID;
using testing::noise;
using testing::VsockBench;
using testing::Where;
using virtio::testing::FakeDriver;
using virtio::testing::readable;
using virtio::testing::writable;

// A packet that belongs to no stream.
const PacketHeader HEADER = VsockBench::header(OP_RW, 1024, 5000);

class HostileVsock: public ::testing::TestWithParam<Where> {
 protected:
  HostileVsock() : bench(GetParam()) { bench.start(); }

  // Whatever happened, a new stream works.
  void expectWell() {
    bench.drain();
    auto host = bench.connectOut(60000, 1);
    bench.send(OP_RW, 60000, 1, "well");
    EXPECT_EQ(bench.read(host, 4), "well");
  }
  void sendFrom(uint64_t source, uint64_t destination, uint16_t type, uint16_t op) {
    auto header = VsockBench::header(op, 1024, 52);
    header.sourceCid = source;
    header.destinationCid = destination;
    header.type = type;
    bench.send(header);
  }
  // As the guest does who honours its credit: until the host's program takes no more.
  void fill(uint32_t port, uint32_t hostPort) {
    auto bytes = noise(50 << 10);
    uint32_t sent = 0;
    uint32_t forwarded = 0;
    for (int i = 0; i < 100 && sent + bytes.size() - forwarded <= 256 << 10; i++) {
      bench.send(OP_RW, port, hostPort, bytes);
      sent += uint32_t(bytes.size());
      KJ_IF_MAYBE (packet, bench.receiveIfAny()) {
        EXPECT_EQ(packet->header.op, OP_CREDIT_UPDATE);
        forwarded = packet->header.forwarded;
      }
    }
    EXPECT_LT(sent, 1 << 20);
  }
  VsockBench bench;
};

// Whether the kernel can be told of one call to a socket that it is not to wait; Linux 6.1 cannot.
bool knowsNowaitForSockets() {
  auto pair = testing::socketPair();
  char byte;
  iovec piece{&byte, 1};
  return preadv2(pair.ours, &piece, 1, -1, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

INSTANTIATE_TEST_SUITE_P(Device, HostileVsock, ::testing::Values(Where::IN_PROCESS, Where::IN_JAIL),
                         [](auto& info) {
                           return info.param == Where::IN_PROCESS ? "InProcess" : "InJail";
                         });

// Nobody to answer: who the packet says it is from is not at the other end.
TEST_P(HostileVsock, VSK01_PacketFromAnotherCidIsDropped) {
  for (uint64_t cid :
       {uint64_t(0), uint64_t(2), uint64_t(4), GUEST_CID | uint64_t(1) << 32, UINT64_MAX})
    sendFrom(cid, HOST_CID, TYPE_STREAM, OP_REQUEST);
  bench.expectNothing();
  EXPECT_EQ(bench.connector->questions, 0);
  expectWell();
}

TEST_P(HostileVsock, VSK01_ReservedDestinationIsRefusedAndNobodyAsked) {
  for (uint64_t cid :
       {uint64_t(0), uint64_t(1), uint64_t(0xffffffff), uint64_t(1) << 32, UINT64_MAX}) {
    sendFrom(GUEST_CID, cid, TYPE_STREAM, OP_REQUEST);
    EXPECT_EQ(bench.expect(OP_RST).header.sourceCid, cid);
  }
  EXPECT_EQ(bench.connector->questions, 0);
  expectWell();
}

TEST_P(HostileVsock, VSK01_UnknownTypeIsRefused) {
  for (uint16_t type : {0, 2, 3, 0xffff}) {
    sendFrom(GUEST_CID, HOST_CID, type, OP_REQUEST);
    EXPECT_EQ(bench.expect(OP_RST).header.type, type);
  }
  EXPECT_EQ(bench.connector->questions, 0);
  expectWell();
}

TEST_P(HostileVsock, VSK01_PacketsOfNoStreamAreRefusedAndResetsAreNot) {
  for (uint16_t op : {0, 2, 4, 5, 6, 7, 8, 0xffff}) {
    bench.send(op, 1024, 52);
    auto answer = bench.expect(OP_RST).header;
    EXPECT_EQ(answer.sourcePort, 52);
    EXPECT_EQ(answer.destinationPort, 1024);
  }
  bench.send(OP_RST, 1024, 52);
  bench.expectNothing();
  expectWell();
}

TEST_P(HostileVsock, VSK01_EveryPacketThatDoesNotBelongThereEndsTheStream) {
  for (uint16_t op : {0, int(OP_REQUEST), int(OP_RESPONSE), 8, 0xffff}) {
    auto host = bench.connectOut(1024, 52);
    bench.send(op, 1024, 52);
    bench.expect(OP_RST);
    EXPECT_TRUE(bench.atEnd(host));
  }
  expectWell();
}

TEST_P(HostileVsock, VSK01_NothingBelongsToAStreamThatNobodyHasAcceptedYet) {
  bench.connector->silent = true;
  for (uint16_t op :
       {OP_REQUEST, OP_RESPONSE, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST}) {
    bench.send(OP_REQUEST, 1024, 52);
    bench.send(op, 1024, 52);
    bench.expect(OP_RST);
  }
  bench.connector->silent = false;
  expectWell();
}

TEST_P(HostileVsock, VSK01_NothingButItsAnswerBelongsToAStreamThatTheHostBegan) {
  for (uint16_t op : {OP_REQUEST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST}) {
    auto client = bench.forwarded.connect();
    auto request = bench.expect(OP_REQUEST).header;
    bench.send(op, FORWARDED_PORT, request.sourcePort);
    bench.expect(OP_RST);
    EXPECT_TRUE(bench.atEnd(client));
  }
  expectWell();
}

TEST_P(HostileVsock, VSK01_DataAfterItsEndEndsTheStream) {
  auto host = bench.connectOut(1024, 52);
  auto end = VsockBench::header(OP_SHUTDOWN, 1024, 52);
  end.flags = SHUTDOWN_SEND;
  bench.send(end);
  bench.send(OP_RW, 1024, 52, "late");
  bench.expect(OP_RST);
  EXPECT_TRUE(bench.atEnd(host));
}

TEST_P(HostileVsock, VSK02_LengthBeyondTheBufferEndsTheStream) {
  for (uint32_t length : {5u, 4097u, 0x7fffffffu, 0xffffffffu}) {
    auto host = bench.connectOut(1024, 52);
    bench.send(VsockBench::header(OP_RW, 1024, 52, length), "four");
    bench.expect(OP_RST);
    EXPECT_EQ(bench.read(host, 1), "");
  }
  expectWell();
}

TEST_P(HostileVsock, VSK02_LengthOfZeroOrLessThanTheBufferCounts) {
  auto host = bench.connectOut(1024, 52);
  bench.send(VsockBench::header(OP_RW, 1024, 52, 0), "none of it");
  bench.send(VsockBench::header(OP_RW, 1024, 52, 3), "abcdef");
  EXPECT_EQ(bench.read(host, 3), "abc");
  bench.send(OP_RW, 1024, 52, "x");
  EXPECT_EQ(bench.read(host, 1), "x");
}

TEST_P(HostileVsock, VSK02_HeaderThatIsCutShortIsDropped) {
  for (uint32_t size : {1u, 43u}) {
    bench.transmitDriver->add({readable(bench.ram.allocate(size), size)});
    EXPECT_EQ(bench.device().waitForUsed(TRANSMIT_QUEUE, *bench.transmitDriver).written, 0);
  }
  bench.transmitDriver->add({writable(bench.ram.allocate(64), 64)});
  EXPECT_EQ(bench.device().waitForUsed(TRANSMIT_QUEUE, *bench.transmitDriver).written, 0);
  bench.expectNothing();
  expectWell();
}

TEST_P(HostileVsock, VSK02_PacketInBuffersOfOneByteIsRead) {
  auto host = bench.connectOut(1024, 52);
  auto header = VsockBench::header(OP_RW, 1024, 52, 5);
  std::string all(reinterpret_cast<char*>(&header), sizeof(header));
  all += "bytes";
  kj::Vector<virtio::testing::Buffer> pieces;
  for (char& byte : all)
    pieces.add(
        bench.transmitDriver->readableBuffer(kj::arrayPtr(reinterpret_cast<kj::byte*>(&byte), 1)));
  bench.transmitDriver->add(pieces);
  bench.device().waitForUsed(TRANSMIT_QUEUE, *bench.transmitDriver);
  EXPECT_EQ(bench.read(host, 5), "bytes");
}

// TOC-02, too: what was checked is what is used.
TEST_P(HostileVsock, VSK02_LengthThatChangesAfterTheCheckChangesNothing) {
  auto host = bench.connectOut(1024, 52);
  auto header = VsockBench::header(OP_RW, 1024, 52, 8);
  uint64_t address = bench.ram.allocate(4096);
  auto guest = bench.ram.bytes(address, 4096);
  memcpy(guest.begin(), &header, sizeof(header));
  std::atomic<bool> over{false};
  std::thread racer([&] {
    volatile uint32_t* length =
        reinterpret_cast<volatile uint32_t*>(guest.begin() + offsetof(PacketHeader, length));
    while (!over) {
      *length = 0xffffffff;
      *length = 8;
    }
  });
  KJ_DEFER({
    over = true;
    racer.join();
  });
  uint32_t port = 1024;
  for (int round = 0; round < 300; round++) {
    bench.transmitDriver->add({readable(address, sizeof(header)), readable(address + 64, 8)});
    bench.device().waitForUsed(TRANSMIT_QUEUE, *bench.transmitDriver);
    while (true) {
      KJ_IF_MAYBE (packet, bench.receiveIfAny()) {
        if (packet->header.op != OP_RST) continue;
        // It was 2^32-1 when it was read: refused. On with a new stream.
        port++;
        memcpy(guest.begin() + offsetof(PacketHeader, sourcePort), &port, sizeof(port));
        host = bench.connectOut(port, 52);
      } else {
        break;
      }
    }
    char bytes[4096];
    while (read(host, bytes, sizeof(bytes)) > 0) {
    }
  }
}

TEST_P(HostileVsock, VSK03_GuestThatSendsMoreThanItsCreditLosesTheStream) {
  auto host = bench.connectOut(1024, 52);
  auto bytes = noise(60000);
  // What the host's socket holds, 256 KiB of credit, and then too much.
  for (int i = 0; i < 20; i++)
    bench.send(OP_RW, 1024, 52, bytes);
  for (;;) {
    auto packet = bench.receive();
    if (packet.header.op == OP_RST) break;
    EXPECT_EQ(packet.header.op, OP_CREDIT_UPDATE);
  }
  EXPECT_TRUE(bench.read(host, 1 << 20).size() > 0);
  expectWell();
}

TEST_P(HostileVsock, VSK03_CreditThatMakesNoSenseIsNoneOrAsMuchAsItSays) {
  auto client = bench.forwarded.connect();
  uint32_t port = bench.acceptIn(/*bufferSize=*/100);
  bench.write(client, noise(1000));
  EXPECT_EQ(bench.expect(OP_RW).payload.size(), 100);
  bench.expect(OP_CREDIT_REQUEST);
  auto update = VsockBench::header(OP_CREDIT_UPDATE, FORWARDED_PORT, port);
  update.bufferSize = 100;
  for (uint32_t forwarded : {101u, 0x80000000u, 0xffffffffu}) {  // more than was sent
    update.forwarded = forwarded;
    bench.send(update);
  }
  bench.expectNothing();
  update.bufferSize = 0;
  update.forwarded = 100;
  bench.send(update);
  bench.expectNothing();
  update.bufferSize = 0xffffffff;
  bench.send(update);
  EXPECT_EQ(bench.expect(OP_RW).payload.size(), 900);
}

TEST_P(HostileVsock, VSK03_GuestThatNeverUpdatesCreditIsSentNoMoreAndHoldsUpNobody) {
  auto client = bench.forwarded.connect();
  bench.acceptIn(/*bufferSize=*/10);
  bench.write(client, noise(100000));
  EXPECT_EQ(bench.expect(OP_RW).payload.size(), 10);
  bench.expect(OP_CREDIT_REQUEST);
  bench.expectNothing();
  expectWell();
}

TEST_P(HostileVsock, VSK03_ReaderThatNeverReadsHoldsUpNobody) {
  auto stuck = bench.connectOut(1024, 52);
  fill(1024, 52);
  expectWell();
}

// O_NONBLOCK is the file description's: whoever handed in the socket can still clear it.
TEST_P(HostileVsock, VSK03_SocketThatItsGiverMakesBlockingHoldsUpNobody) {
  if (!knowsNowaitForSockets()) GTEST_SKIP() << "this kernel has no RWF_NOWAIT for sockets";
  bench.connector->keepsWhatItGives = true;
  auto read = bench.connectOut(1024, 52);
  ASSERT_EQ(fcntl(bench.connector->given.back(), F_SETFL, 0), 0);
  auto written = bench.connectOut(1025, 52);
  ASSERT_EQ(fcntl(bench.connector->given.back(), F_SETFL, 0), 0);

  bench.write(read, "x");  // behind which nothing comes
  EXPECT_EQ(bench.expect(OP_RW).payload, "x");
  fill(1025, 52);
  expectWell();
}

TEST_P(HostileVsock, VSK04_PortReuseStorm) {
  kj::Vector<PacketHeader> storm;
  for (int i = 0; i < 5000; i++) {
    storm.add(VsockBench::header(OP_REQUEST, 1024, 52));
    storm.add(VsockBench::header(i % 2 ? OP_RST : OP_REQUEST, 1024, 52));
  }
  bench.sendAll(storm);
  expectWell();
}

TEST_P(HostileVsock, VSK04_SixtyFiveThousandConnectionsAreBounded) {
  bench.connector->silent = true;  // half open, all of them
  kj::Vector<PacketHeader> requests;
  for (uint32_t port = 0; port < 65536; port++)
    requests.add(VsockBench::header(OP_REQUEST, port, 52));
  uint32_t refused = 0;
  bench.sendAll(requests, [&](const testing::Packet& packet) {
    EXPECT_EQ(packet.header.op, OP_RST);
    refused++;
  });
  // More, where the machine is so slow that the first have waited too long.
  bench.device().waitUntil([&] {
    while (bench.receiveIfAny() != nullptr)
      refused++;
    return refused >= 65536 - 3840;
  });
  // Giving some up makes room for others.
  bench.connector->silent = false;
  kj::Vector<PacketHeader> resets;
  for (uint32_t port = 0; port < 65536; port++)
    resets.add(VsockBench::header(OP_RST, port, 52));
  bench.sendAll(resets);
  expectWell();
}

TEST_P(HostileVsock, VSK04_RefusalsWaitForBuffersAndTheDriverForThem) {
  bench.restart(/*buffers=*/0);
  for (int i = 0; i < 256; i++)
    bench.send(OP_RW, 1024, 52);
  // As many as are kept: the next stays in the ring until there is a buffer.
  uint64_t address = bench.ram.allocate(64);
  auto header = VsockBench::header(OP_RW, 1024, 52);
  memcpy(bench.ram.bytes(address, sizeof(header)).begin(), &header, sizeof(header));
  bench.transmitDriver->add({readable(address, sizeof(header))});
  bench.device().kick(TRANSMIT_QUEUE);
  bench.device().settle();
  EXPECT_TRUE(bench.transmitDriver->takeUsed() == nullptr);
  bench.offer(8, 4096);
  for (int i = 0; i < 257; i++)
    bench.expect(OP_RST);
  expectWell();
}

TEST_P(HostileVsock, VSK05_PortsThatNobodyServesAreRefused) {
  for (uint32_t port : {1000u, 5000u, 0xfffffffeu, 0xffffffffu}) {
    bench.send(OP_REQUEST, 1024, port);
    bench.expect(OP_RST);
  }
  expectWell();
}

TEST_P(HostileVsock, ClientsThatSayNonsenseAreHungUpOn) {
  for (auto line : {"\n", "GET / HTTP/1.1\r\n\r\n", "CONNECT\n", "CONNECT x\n", "CONNECT 1 \n",
                    "CONNECT 4294967295\n", "CONNECT 99999999999999999999999999999\n",
                    "0123456789012345678901234567890123456789"}) {
    auto client = bench.hybrid.connect();
    bench.write(client, line);
    EXPECT_TRUE(bench.atEnd(client)) << line;
  }
  auto half = bench.hybrid.connect();
  bench.write(half, "CONNECT 12");
  half = nullptr;
  bench.expectNothing();
  expectWell();
}

TEST_P(HostileVsock, ClientThatHandsOverAnFdHandsItToNobody) {
  auto client = bench.forwarded.connect();
  bench.acceptIn();
  auto pair = testing::socketPair();
  char byte = 'x';
  iovec piece{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  auto* part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  int fd = pair.theirs;
  memcpy(CMSG_DATA(part), &fd, sizeof(fd));
  KJ_SYSCALL(sendmsg(client, &message, 0));
  bench.write(client, "y");
  std::string got = bench.expect(OP_RW).payload;
  while (got.size() < 2)
    got += bench.expect(OP_RW).payload;
  EXPECT_EQ(got, "xy");
  pair.theirs = nullptr;
  EXPECT_TRUE(bench.atEnd(pair.ours));  // nobody kept it
}

TEST_P(HostileVsock, BuffersTooSmallForAHeaderGoBackUnused) {
  bench.restart(/*buffers=*/0);
  auto& driver = *bench.receiveDriver;
  driver.add({writable(bench.ram.allocate(64), 43)});
  driver.add({readable(bench.ram.allocate(64), 64)});
  bench.offer(1, 44);
  bench.send(OP_REQUEST, 1024, 5000);
  EXPECT_EQ(bench.device().waitForUsed(RECEIVE_QUEUE, driver).written, 0);
  EXPECT_EQ(bench.device().waitForUsed(RECEIVE_QUEUE, driver).written, 0);
  bench.expect(OP_RST);
}

TEST_P(HostileVsock, BuffersWithoutRoomForDataCarryNone) {
  bench.restart(/*buffers=*/0);
  bench.offer(2, 44);
  auto client = bench.forwarded.connect();
  bench.acceptIn();
  bench.write(client, "data");
  EXPECT_EQ(bench.device().waitForUsed(RECEIVE_QUEUE, *bench.receiveDriver).written, 0);
  bench.offer(2, 45);
  auto first = bench.device().waitForUsed(RECEIVE_QUEUE, *bench.receiveDriver).written;
  while (first == 0)
    first = bench.device().waitForUsed(RECEIVE_QUEUE, *bench.receiveDriver).written;
  EXPECT_EQ(first, 45);
}

TEST_P(HostileVsock, VQ04_RingThatNeverRunsEmptyStarvesNobody) {
  for (int round = 0; round < 5; round++) {
    auto& driver = *bench.transmitDriver;
    auto header = VsockBench::header(OP_RW, 1024, 5000);
    uint64_t address = bench.ram.allocate(64);
    memcpy(bench.ram.bytes(address, sizeof(header)).begin(), &header, sizeof(header));
    for (uint16_t i = 0; i < driver.size(); i++) {
      driver.writeDescriptor(i, {address, sizeof(header), 0, 0});
      driver.writeAvailable(i, i);
    }
    std::atomic<bool> over{false};
    std::thread vcpu([&] {
      while (!over) {
        driver.writeAvailableIndex(driver.usedIndex() + driver.size());
        eventfd_write(bench.device().kickFd(TRANSMIT_QUEUE), 1);
      }
    });
    KJ_DEFER({
      over = true;
      vcpu.join();
    });
    bench.device().settle();
    bench.device().describe();
    EXPECT_EQ(bench.device().host.resetsAsked, 0);
    over = true;
    bench.restart();
  }
  expectWell();
}

TEST_P(HostileVsock, VQ03_HeadBeyondTheRingAsksForAResetInEachQueue) {
  FakeDriver* drivers[] = {bench.receiveDriver, bench.transmitDriver, bench.eventDriver};
  for (uint16_t queue = 0; queue < QUEUES; queue++) {
    uint32_t before = bench.device().host.resetsAsked;
    if (queue == EVENT_QUEUE) break;  // looked at only with an event to tell
    drivers[queue]->makeAvailable(0xffff);
    // The receive ring is looked at when there is something for the guest.
    if (queue == RECEIVE_QUEUE) {
      for (int i = 0; i < 70; i++)
        bench.transmitDriver->add({bench.transmitDriver->readableBuffer(
            kj::arrayPtr(reinterpret_cast<const kj::byte*>(&HEADER), sizeof(HEADER)))});
      bench.device().kick(TRANSMIT_QUEUE);
    }
    bench.device().kick(queue);
    bench.device().waitUntil([&] { return bench.device().host.resetsAsked == before + 1; });
    bench.restart();
    drivers[0] = bench.receiveDriver;
    drivers[1] = bench.transmitDriver;
    drivers[2] = bench.eventDriver;
  }
  expectWell();
}

TEST_P(HostileVsock, VQ05_BuffersOutsideMemoryAskForAReset) {
  for (uint64_t address :
       {uint64_t(1) << 40, UINT64_MAX - 20, 8 * virtio::testing::FakeRam::MIB - 8}) {
    uint32_t before = bench.device().host.resetsAsked;
    bench.transmitDriver->add({readable(address, 44)});
    bench.device().kick(TRANSMIT_QUEUE);
    bench.device().waitUntil([&] { return bench.device().host.resetsAsked == before + 1; });
    bench.restart();
  }
  expectWell();
}

TEST_P(HostileVsock, VQ11_AHundredThousandMistakesLeaveNothingBehind) {
  kj::Vector<PacketHeader> mistakes;
  for (uint32_t i = 0; i < 100000; i++)
    mistakes.add(VsockBench::header(i % 3 == 0 ? OP_RW : i % 3 == 1 ? OP_SHUTDOWN : 77, i, 52));
  bench.sendAll(mistakes);
  expectWell();
}

TEST_P(HostileVsock, RST01_ResetWithEverythingUnderWay) {
  for (int round = 0; round < 8; round++) {
    auto host = bench.connectOut(1024, 52);
    bench.connector->silent = true;
    for (uint32_t port = 0; port < 50; port++)
      bench.send(OP_REQUEST, port, 52);
    bench.connector->silent = false;
    kj::Vector<kj::AutoCloseFd> clients;
    for (int i = 0; i < 20; i++)
      clients.add(bench.forwarded.connect());
    bench.send(OP_RW, 1024, 52, noise(100000));
    bench.write(host, noise(100000));
    bench.restart();
    EXPECT_EQ(bench.device().host.resetsAsked, 0);
    clients.clear();
    bench.drain();
    bench.restart();
  }
}

TEST_P(HostileVsock, RST04_KicksWhileResetDoNothing) {
  bench.device().reset();
  for (uint16_t queue = 0; queue < QUEUES; queue++)
    bench.device().kick(queue);
  bench.device().settle();
  bench.restart();
  expectWell();
}

TEST_P(HostileVsock, CFG01_TheCidCannotBeWritten) {
  auto described = bench.device().describe();
  for (kj::byte mask : described.getInfo().getConfigWriteMask())
    EXPECT_EQ(mask, 0);
  kj::byte bytes[16] = {};
  EXPECT_ANY_THROW(bench.device().writeConfig(0, kj::arrayPtr(bytes, 9)));
  EXPECT_ANY_THROW(bench.device().writeConfig(9, kj::arrayPtr(bytes, 0)));
  bench.device().writeConfig(0, kj::arrayPtr(bytes, 8));
  expectWell();
}

TEST_P(HostileVsock, QueuesThatTheDriverLeftOutAreMissed) {
  bench.device().reset();
  FakeDriver receive(bench.ram, 256);
  FakeDriver transmit(bench.ram, 256);
  auto client = bench.forwarded.connect();
  bench.device().activate(testing::FEATURES, {nullptr, &transmit, nullptr});
  transmit.add({transmit.readableBuffer(
      kj::arrayPtr(reinterpret_cast<const kj::byte*>(&HEADER), sizeof(HEADER)))});
  bench.device().waitForUsed(TRANSMIT_QUEUE, transmit);
  bench.device().reset();
  bench.device().activate(testing::FEATURES, {&receive, nullptr, nullptr});
  bench.device().settle();
  bench.device().reset();
  bench.device().activate(testing::FEATURES, {});
  bench.device().settle();
  client = nullptr;
  bench.restart();
  while (bench.receiveIfAny() != nullptr) {
  }
  expectWell();
}

}  // namespace
}  // namespace troupe::vsock
