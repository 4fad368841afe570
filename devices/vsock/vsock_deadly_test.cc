// Requests that the device dies of, with this test as troupe, broker and driver.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>
#include <string>

#include "devices/virtio/testing/deadly_request.h"
#include "devices/vsock/testing/vsock_bench.h"

namespace troupe::vsock {
namespace {

using testing::VsockBench;
using testing::Where;
using virtio::testing::DEADLY_BYTES;

struct Fixture: public VsockBench {
  Fixture() : VsockBench(Where::IN_JAIL, 8 * testing::FakeRam::MIB, "devices/dying_devices") {}

  void offerEvent() {
    eventDriver->add({eventDriver->writableBuffer(sizeof(Event))});
    if (eventDriver->shouldKick()) device().kick(EVENT_QUEUE);
  }
  // The driver deals with it.
  void expectReset() {
    EXPECT_EQ(device().waitForUsed(EVENT_QUEUE, *eventDriver).written, sizeof(Event));
    offerEvent();
  }
  // A packet of this kind that is deadly.
  std::string deadlyPacket(uint16_t op) {
    auto head = header(op, 1024, 52, DEADLY_BYTES - sizeof(PacketHeader));
    std::string packet(reinterpret_cast<const char*>(&head), sizeof(head));
    packet.resize(DEADLY_BYTES, 'x');
    transmitDriver->add({transmitDriver->readableBuffer(bytesOf(packet))});
    if (transmitDriver->shouldKick()) device().kick(TRANSMIT_QUEUE);
    return packet;
  }
  static kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
    return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
  }

  // As the driver sees two processes die of a packet; another one lives.
  void outliveTwo() {
    virtio::testing::expectDeath(KJ_ASSERT_NONNULL(process));
    takeOver();
    expectReset();
    virtio::testing::expectDeath(KJ_ASSERT_NONNULL(process));
    takeOver();
    expectReset();
  }
};

TEST(VsockDeadly, AStreamWhoseRequestTwoProcessesDiedOfIsRefusedAndPutAside) {
  Fixture f;
  f.start();
  f.offerEvent();
  virtio::testing::KeptView kept(f.journalToRead());
  auto packet = f.deadlyPacket(OP_REQUEST);
  f.outliveTwo();
  auto refusal = f.expect(OP_RST).header;
  EXPECT_EQ(refusal.destinationPort, 1024u);
  EXPECT_EQ(refusal.sourcePort, 52u);
  EXPECT_EQ(f.device().waitForUsed(TRANSMIT_QUEUE, *f.transmitDriver).written, 0u);
  EXPECT_EQ(f.connector->questions, 0u);
  kept.expectOne(TRANSMIT_QUEUE, Fixture::bytesOf(packet));
  // The same stream can be had.
  f.connectOut(1024, 52);
}

TEST(VsockDeadly, DataThatTwoProcessesDiedOfReachesNobody) {
  Fixture f;
  f.start();
  f.offerEvent();
  virtio::testing::KeptView kept(f.journalToRead());
  auto host = f.connectOut(1024, 52);
  auto packet = f.deadlyPacket(OP_RW);
  f.outliveTwo();
  EXPECT_EQ(f.expect(OP_RST).header.destinationPort, 1024u);
  f.device().waitForUsed(TRANSMIT_QUEUE, *f.transmitDriver);
  EXPECT_EQ(f.read(host, SIZE_MAX), "");
  kept.expectOne(TRANSMIT_QUEUE, Fixture::bytesOf(packet));
}

TEST(VsockDeadly, ABufferThatTwoProcessesDiedOverComesBackEmpty) {
  Fixture f;
  f.start(/*buffers=*/0);
  f.offerEvent();
  virtio::testing::KeptView kept(f.journalToRead());
  auto& ring = *f.receiveDriver;
  uint16_t deadly = ring.add({ring.writableBuffer(DEADLY_BYTES)});
  if (ring.shouldKick()) f.device().kick(RECEIVE_QUEUE);
  auto ask = VsockBench::header(OP_RW, 1024, 52);  // of no stream
  auto bytes = kj::arrayPtr(&ask, 1).asBytes();
  f.transmitDriver->add({f.transmitDriver->readableBuffer(bytes)});
  if (f.transmitDriver->shouldKick()) f.device().kick(TRANSMIT_QUEUE);
  f.outliveTwo();
  auto used = f.device().waitForUsed(RECEIVE_QUEUE, ring);
  EXPECT_EQ(used.head, deadly);
  EXPECT_EQ(used.written, 0u);
}

}  // namespace
}  // namespace troupe::vsock
