#include "tests/fuzz/recording_ops.h"

#include <gtest/gtest.h>

#include <cstring>

#include "devices/blk/fuzz_request.h"
#include "devices/virtio/queue_flight.h"
#include "devices/virtio/testing/ring_bench.h"

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

TEST(RecordingOps, OfAnotherKindThereAreNone) {
  Recorded recorded;
  EXPECT_TRUE(opsOf("balloon", recorded.events()).empty());
}

}  // namespace
}  // namespace troupe::fuzz
