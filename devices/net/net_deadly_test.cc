// Requests that the device dies of, with this test as troupe, broker and driver.
#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/net/testing/net_driver.h"
#include "devices/virtio/testing/deadly_request.h"

namespace troupe::net {
namespace {

using testing::frame;
using testing::OTHER;
using testing::OWN;
using testing::withHeader;
using virtio::testing::DEADLY_BYTES;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint16_t RECEIVE = 0, TRANSMIT = 1, CONTROL = 2;
constexpr size_t DEADLY_FRAME = DEADLY_BYTES - sizeof(virtio::NetHeader);

struct Fixture {
  Fixture() {
    auto config = message.initRoot<NetConfig>();
    config.setMac(kj::ArrayPtr<const kj::byte>(OWN.bytes));
    config.setBackend(NetConfig::Backend::PACKETS);
    config.setSocketHasHeaders(true);
  }

  void begin(bool isFirst) {
    HandedFd fds[] = {{"socket", 0, cable.device}, {"journal", 0, kept.fd()}};
    process = kj::heap<ProcessBench>(driver.ram, NET_PROFILE, "troupe-net", 3, fds,
                                     message.getRoot<capnp::AnyPointer>().asReader(),
                                     "devices/dying_devices");
    process->attach();
    auto request = process->activateRequest(
        testing::FEATURES, {&driver.receiver(), &driver.transmitter(), &driver.control()});
    request.setResumed(!isFirst);
    request.setOwnFault(!isFirst);
    // It may die before it answers.
    answer = request.send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
  }
  // Two processes die of what is on its way; another one lives.
  void outliveTwo() {
    for (bool isFirst : {true, false}) {
      begin(isFirst);
      virtio::testing::expectDeath(*process);
      answer = nullptr;
      process = nullptr;
    }
    begin(false);
  }

  virtio::testing::KeptFile kept;
  testing::NetDriver driver{1, 64};
  testing::Cable cable{SOCK_SEQPACKET};
  capnp::MallocMessageBuilder message;
  kj::Own<ProcessBench> process;
  kj::Promise<void> answer = nullptr;
};

TEST(NetDeadly, AFrameThatTwoProcessesDiedOfIsDroppedAndPutAside) {
  Fixture f;
  auto deadly = withHeader({}, frame(OTHER, OWN, DEADLY_FRAME, 0x44));
  auto innocent = withHeader({}, frame(OTHER, OWN, 300, 0x55));
  auto& driver = f.driver.transmitter();
  driver.add({driver.readableBuffer(deadly)});
  driver.add({driver.readableBuffer(innocent)});
  f.outliveTwo();
  for (int i = 0; i < 2; i++)
    EXPECT_EQ(f.process->waitForUsed(TRANSMIT, driver).written, 0u);
  auto sent = f.cable.peer.receive();
  EXPECT_TRUE(KJ_ASSERT_NONNULL(sent) == innocent);
  EXPECT_TRUE(f.cable.peer.receive() == nullptr);
  f.kept.expectOne(TRANSMIT, deadly);
}

TEST(NetDeadly, ACommandThatTwoProcessesDiedOfIsRefusedAndPutAside) {
  Fixture f;
  kj::byte command[DEADLY_BYTES] = {virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_PROMISC};
  auto& driver = f.driver.control();
  auto answer = driver.writableBuffer(1);
  driver.add({driver.readableBuffer(command), answer});
  f.outliveTwo();
  EXPECT_EQ(f.process->waitForUsed(CONTROL, driver).written, 1u);
  EXPECT_EQ(f.driver.ram.bytes(answer.address, 1)[0], virtio::NET_ERR);
  f.kept.expectOne(CONTROL, command);
}

TEST(NetDeadly, ABufferThatTwoProcessesDiedOverComesBackEmpty) {
  Fixture f;
  auto& driver = f.driver.receiver();
  uint16_t deadly = driver.add({driver.writableBuffer(DEADLY_BYTES)});
  auto buffer = driver.writableBuffer(2048);
  uint16_t innocent = driver.add({buffer});
  f.outliveTwo();
  auto used = f.process->waitForUsed(RECEIVE, driver);
  EXPECT_EQ(used.head, deadly);
  EXPECT_EQ(used.written, 0u);
  auto arriving = withHeader({}, frame(OWN, OTHER, 300, 0x66));
  ASSERT_TRUE(f.cable.peer.send(arriving));
  used = f.process->waitForUsed(RECEIVE, driver);
  EXPECT_EQ(used.head, innocent);
  ASSERT_EQ(used.written, arriving.size());
  size_t header = sizeof(virtio::NetHeader);
  EXPECT_TRUE(f.driver.ram.bytes(buffer.address, used.written).slice(header, used.written) ==
              arriving.slice(header, arriving.size()));
  f.kept.expectOne(RECEIVE, nullptr);
}

}  // namespace
}  // namespace troupe::net
