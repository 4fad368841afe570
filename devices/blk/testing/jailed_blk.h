#pragma once

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/vector.h>

#include <string>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/virtio/testing/process_bench.h"

namespace troupe::blk::testing {

constexpr uint16_t JAILED_QUEUES = 2;

// The actor as shipped, in its jail, with a disk, two queues and their driver.
struct JailedBlk: BlkDriver {
  explicit JailedBlk(int disk, bool readOnly = false)
      : fds{virtio::testing::HandedFd{"disk", 0, disk}},
        device(ram, BLK_PROFILE, "troupe-blk", JAILED_QUEUES, fds, configure(readOnly)) {}

  void attachAndActivate() {
    device.attach();
    EXPECT_EQ(differences(sandbox::Stage::READY), "");
    activate();
  }
  void activate() {
    drivers.clear();
    for (int i = 0; i < JAILED_QUEUES; i++)
      drivers.add(kj::heap<virtio::testing::FakeDriver>(ram, 256));
    device.activate(FEATURES, {drivers[0], drivers[1]});
  }
  std::string differences(sandbox::Stage stage) {
    std::string all;
    for (auto& difference : device.attest(stage))
      all += std::string(difference.cStr()) + "\n";
    return all;
  }

 private:
  capnp::MallocMessageBuilder message;
  virtio::testing::HandedFd fds[1];

  kj::Maybe<capnp::AnyPointer::Reader> configure(bool readOnly) {
    auto config = message.initRoot<BlkConfig>();
    config.setId("jailed");
    config.setQueues(JAILED_QUEUES);
    config.setReadOnly(readOnly);
    return message.getRoot<capnp::AnyPointer>().asReader();
  }

 public:
  virtio::testing::ProcessBench device;
};

}  // namespace troupe::blk::testing
