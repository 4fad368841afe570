// What a device process that somebody took over can write to the broker.
#include <gtest/gtest.h>

#include "broker/remote_device_bench.h"
#include "tests/rpc/garbage.h"

namespace troupe::broker {
namespace {

using troupe::testing::Garbage;
using troupe::testing::garbage;
using troupe::testing::Target;

// Turns the loop until the device is lost.
void expectLostOnce(Link& link, const Garbage& piece) {
  for (int i = 0; i < 1000 && link.losses.empty(); ++i)
    link.sleep(1);
  EXPECT_EQ(link.losses.size(), 1) << piece.name;
}

kj::ArrayPtr<const kj::byte> bytesOf(const Garbage& piece) {
  return kj::arrayPtr(piece.bytes.data(), piece.bytes.size());
}

TEST(RemoteDeviceGarbage, BRK01AFreshDeviceIsLostAndItsDescriptionRefused) {
  for (const Garbage& piece : garbage(Target{capnp::typeId<DeviceHost>(), 2})) {
    Link link;
    link.rpc = nullptr;
    link.network = nullptr;
    link.sendRaw(bytesOf(piece));
    auto failure = failureOf([&]() { link.remote->describe().wait(link.io.waitScope); });
    EXPECT_EQ(failure.find("TRP-pci-003: "), 0) << piece.name << ": " << failure;
    expectLostOnce(link, piece);
  }
}

// Its driver is let go whatever it writes, and later calls are harmless.
TEST(RemoteDeviceGarbage, BRK01AServingDeviceIsLostAndItsDriverLetGo) {
  for (const Garbage& piece : garbage(Target{capnp::typeId<DeviceHost>(), 2, 1000})) {
    Link link;
    link.start();
    link.script.answersReset = false;
    link.remote->reset();
    link.sendRaw(bytesOf(piece));
    expectLostOnce(link, piece);
    EXPECT_EQ(link.client.resetsDone, 1) << piece.name;
    link.remote->reset();
    EXPECT_EQ(link.client.resetsDone, 2) << piece.name;
  }
}

}  // namespace
}  // namespace troupe::broker
