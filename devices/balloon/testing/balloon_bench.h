#pragma once

#include <capnp/message.h>
#include <endian.h>

#include <vector>

#include "devices/balloon/balloon.capnp.h"
#include "devices/balloon/balloon_profile.h"
#include "devices/balloon/wire.h"
#include "devices/virtio/testing/process_bench.h"
#include "devices/virtio/wire.h"

namespace troupe::balloon {

using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;

constexpr uint64_t MIB = FakeRam::MIB;
constexpr uint16_t QUEUE_SIZE = 128;
constexpr uint16_t QUEUES = 5;
constexpr virtio::RingFeatures RING{true, false};
constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | F_STATS_VQ |
                              F_DEFLATE_ON_OOM | F_FREE_PAGE_HINT | F_PAGE_REPORTING;

enum Queue : uint16_t { INFLATE, DEFLATE, STATISTICS, HINT, REPORT };

// troupe-balloon in its jail, with this test as broker and driver. As under the broker it has guest
// RAM to read alone.
struct BalloonConfigMessage {
  BalloonConfigMessage() { message.initRoot<BalloonConfig>().setStatistics(true); }
  capnp::MallocMessageBuilder message;
};
class JailedBalloon final: private BalloonConfigMessage, public virtio::testing::ProcessBench {
 public:
  explicit JailedBalloon(FakeRam& ram, std::vector<virtio::testing::HandedFd> fds = {},
                         kj::StringPtr executable = "devices/troupe-devices")
      : ProcessBench(ram, BALLOON_PROFILE, "troupe-balloon", QUEUES,
                     kj::arrayPtr(fds.data(), fds.size()),
                     message.getRoot<capnp::AnyPointer>().asReader(), executable) {}
};

// A driver of all its queues.
struct BalloonDriver {
  explicit BalloonDriver(FakeRam& ram)
      : queues{{ram, QUEUE_SIZE, RING},
               {ram, QUEUE_SIZE, RING},
               {ram, QUEUE_SIZE, RING},
               {ram, QUEUE_SIZE, RING},
               {ram, QUEUE_SIZE, RING}} {}

  void activate(JailedBalloon& device, uint64_t features = FEATURES) {
    device.activate(features, {&queues[0], &queues[1], &queues[2], &queues[3], &queues[4]});
  }
  FakeDriver& operator[](uint16_t queue) { return queues[queue]; }

  Buffer pages(std::vector<uint32_t> numbers) {
    for (uint32_t& number : numbers)
      number = htole32(number);
    return queues[0].readableBuffer(kj::arrayPtr(numbers.data(), numbers.size()).asBytes());
  }

  FakeDriver queues[QUEUES];
};

}  // namespace troupe::balloon
