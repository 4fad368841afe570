#include "tests/fuzz/recording_ops.h"

#include <gtest/gtest.h>

#include <cstring>

#include "devices/balloon/fuzz_request.h"
#include "devices/blk/fuzz_request.h"
#include "devices/net/fuzz_request.h"
#include "devices/virtio/queue_flight.h"
#include "devices/virtio/testing/ring_bench.h"
#include "devices/vsock/fuzz_request.h"

namespace troupe::fuzz {
namespace {

using virtio::BlkRequestHeader;
using virtio::FlightLog;
using virtio::testing::Ring;

// A recording of what was put into one ring.
struct Recorded {
  explicit Recorded(uint16_t queue = 0) {
    log.add(0, [](FlightEvent::Builder event) { event.initActivated().setFeatures(0x12); });
    ring.queue.record(kj::heap<virtio::QueueFlight>(log, queue, ring.queue.size()));
  }

  EventList events() {
    EventList list;
    auto head = reinterpret_cast<const FlightLog::Head*>(words.data());
    auto begin = reinterpret_cast<const capnp::word*>(words.data());
    list.take(kj::arrayPtr(begin + FlightLog::FIRST_EVENT / 8, begin + head->end.load() / 8));
    return list;
  }

  std::vector<uint64_t> words = std::vector<uint64_t>(FlightLog::LEAST_BYTES / 8);
  FlightLog log{kj::arrayPtr(words.data(), words.size()).asBytes(), nullptr};
  Ring ring;
};

TEST(RecordingOps, ADiskIsAskedForTheSameAgain) {
  Recorded recorded;
  BlkRequestHeader header{virtio::BLK_T_IN, 0, 37};
  auto question = recorded.ring.driver.readableBuffer(kj::arrayPtr(&header, 1).asBytes());
  auto data = recorded.ring.driver.writableBuffer(4096);
  auto status = recorded.ring.driver.writableBuffer(1);
  recorded.ring.driver.addIndirect({question, data, status});
  ASSERT_TRUE(recorded.ring.queue.pop() != nullptr);

  auto inputs = opsOf("blk", recorded.events());
  ASSERT_EQ(inputs.size(), 1);
  auto& ops = inputs[0];
  ASSERT_EQ(ops.size(), 4);
  EXPECT_EQ(ops[0].what(), OpKind::FEATURES);
  EXPECT_EQ(ops[0].d, 0x12);
  ASSERT_EQ(ops[1].what(), OpKind::REQUEST);
  EXPECT_EQ(ops[2].what(), OpKind::PUBLISH);
  EXPECT_EQ(ops[3].what(), OpKind::KICK);
  RequestTemplate request;
  blk::chooseRequest(ops[1], request);
  BlkRequestHeader made;
  ASSERT_EQ(request.header.size(), sizeof(made));
  memcpy(&made, request.header.data(), sizeof(made));
  EXPECT_EQ(made.type, virtio::BLK_T_IN);
  EXPECT_EQ(made.sector, 37);
  EXPECT_EQ(request.writable, 4096);
  EXPECT_EQ(request.tail, 1);
}

TEST(RecordingOps, AnInputHasWholeRequestsAndNoneComesTwice) {
  Recorded recorded;
  for (int i = 0; i < 400; i++) {
    auto room = recorded.ring.driver.writableBuffer(64);
    recorded.ring.driver.add({room});
    auto chain = KJ_ASSERT_NONNULL(recorded.ring.queue.pop());
    recorded.ring.queue.push(kj::mv(chain), 64);
    recorded.ring.queue.publish();
    recorded.ring.driver.takeUsed();
  }
  auto inputs = opsOf("rng", recorded.events());
  ASSERT_GE(inputs.size(), 1);
  EXPECT_LT(inputs.size(), 5) << "they are all alike";
  for (auto& ops : inputs) {
    EXPECT_LE(ops.size(), MAX_OPS);
    EXPECT_EQ(ops.front().what(), OpKind::FEATURES);
    EXPECT_EQ(ops.back().what(), OpKind::KICK);
  }
}

template <typename T>
std::vector<kj::byte> bytesOf(const T& value) {
  auto begin = reinterpret_cast<const kj::byte*>(&value);
  return {begin, begin + sizeof(value)};
}

// What a target of `kind` makes of the one chain of a recording, whose only buffer is `said`.
template <typename Choose>
RequestTemplate askedAgain(kj::StringPtr kind, uint16_t queue, std::vector<kj::byte> said,
                           Choose&& choose) {
  Recorded recorded(queue);
  recorded.ring.driver.add({recorded.ring.driver.readableBuffer(
      kj::arrayPtr<const kj::byte>(said.data(), said.size()))});
  EXPECT_TRUE(recorded.ring.queue.pop() != nullptr);
  RequestTemplate request;
  for (auto& ops : opsOf(kind, recorded.events()))
    for (auto& op : ops)
      if (op.what() == OpKind::REQUEST) choose(op, request);
  return request;
}

TEST(RecordingOps, ACardIsGivenAFrameOfTheSameSizeAndOffloads) {
  virtio::NetHeader header{};
  header.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  header.gsoType = virtio::NET_HDR_GSO_TCPV6;
  header.gsoSize = 1440;
  header.headerBytes = 74;
  header.checksumStart = 54;
  header.checksumOffset = 16;
  auto said = bytesOf(header);
  said.resize(said.size() + 3000, 7);
  auto request = askedAgain("net", 1, said, net::chooseRequest);
  ASSERT_GE(request.header.size(), sizeof(header));
  virtio::NetHeader made;
  memcpy(&made, request.header.data(), sizeof(made));
  EXPECT_EQ(bytesOf(made), bytesOf(header));
  EXPECT_EQ(request.header.size() + request.readable, said.size());
}

TEST(RecordingOps, AVsockDeviceIsSentTheSamePackets) {
  for (uint16_t op : {vsock::OP_REQUEST, vsock::OP_RESPONSE, vsock::OP_RST, vsock::OP_SHUTDOWN,
                      vsock::OP_RW, vsock::OP_CREDIT_UPDATE, vsock::OP_CREDIT_REQUEST}) {
    vsock::PacketHeader header{};
    header.sourceCid = vsock::FUZZED_CID;
    header.destinationCid = vsock::HOST_CID;
    header.sourcePort = 1025;
    header.destinationPort = 52;
    header.type = vsock::TYPE_STREAM;
    header.op = op;
    header.flags = op == vsock::OP_SHUTDOWN ? vsock::SHUTDOWN_BOTH : 0;
    header.bufferSize = 1 << 16;
    header.forwarded = 5000;
    auto said = bytesOf(header);
    if (op == vsock::OP_RW) {
      header.length = 100;
      said = bytesOf(header);
      said.resize(said.size() + 100);
    }
    auto request = askedAgain("vsock", vsock::TRANSMIT_QUEUE, said, vsock::chooseRequest);
    vsock::PacketHeader made;
    ASSERT_EQ(request.header.size(), sizeof(made));
    memcpy(&made, request.header.data(), sizeof(made));
    // Ports are brought down to the target's few: 10 and 11 here, 50 to 52 there.
    header.sourcePort = 11;
    header.destinationPort = 50 + 52 % 3;
    EXPECT_EQ(bytesOf(made), bytesOf(header)) << op;
    EXPECT_EQ(request.readable, header.length);
  }
}

TEST(RecordingOps, ABalloonIsGivenARowOfPagesOfTheSameLength) {
  uint32_t pages[5] = {40, 41, 42, 43, 44};
  auto request = askedAgain("balloon", 0, bytesOf(pages), balloon::chooseRequest);
  ASSERT_EQ(request.header.size(), sizeof(pages));
  uint32_t made[5];
  memcpy(made, request.header.data(), sizeof(made));
  EXPECT_EQ(made[0], 40);
  EXPECT_EQ(made[1], 41);
}

TEST(RecordingOps, FramesThatCameComeAgain) {
  Recorded recorded(0);
  recorded.log.add(0, [](FlightEvent::Builder event) {
    auto call = event.initCalled();
    call.setKind(HostCall::Kind::INPUT);
    call.setBytes(1514);
  });
  auto inputs = opsOf("net", recorded.events());
  ASSERT_EQ(inputs.size(), 1);
  ASSERT_GE(inputs[0].size(), 3);
  EXPECT_EQ(inputs[0][1].what(), OpKind::EVENT);
  EXPECT_EQ(inputs[0][1].c, 1514);
  EXPECT_EQ(inputs[0][2].what(), OpKind::KICK);
}

TEST(RecordingOps, OfAnotherKindThereAreNone) {
  Recorded recorded;
  EXPECT_TRUE(opsOf("serial", recorded.events()).empty());
}

}  // namespace
}  // namespace troupe::fuzz
