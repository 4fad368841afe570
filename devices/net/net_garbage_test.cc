// What a broker that somebody took over can write to a network device in its jail.
#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/net/testing/net_driver.h"
#include "devices/virtio/testing/process_bench.h"
#include "protos/device.capnp.h"
#include "tests/rpc/garbage.h"

namespace troupe::net {
namespace {

using testing::Cable;
using testing::NetDriver;
using testing::OWN;
using troupe::testing::Garbage;
using troupe::testing::garbage;
using troupe::testing::Target;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

Target device(uint32_t firstQuestion) {
  return Target{capnp::typeId<Device>(), 6, firstQuestion};
}

struct Bench: public NetDriver {
  Bench() {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<NetConfig>();
    config.setMac(kj::ArrayPtr<const kj::byte>(OWN.bytes));
    config.setBackend(NetConfig::Backend::PACKETS);
    HandedFd fds[] = {{"socket", 0, cable.device}};
    device = kj::heap<ProcessBench>(ram, NET_PROFILE, "troupe-net", 3, fds,
                                    message.getRoot<capnp::AnyPointer>().asReader());
  }

  // Neither a signal of the filter's nor one of the processor's, nor a hang, nor a failure of its
  // own.
  void expectOrderlyEnd(const Garbage& piece) {
    device->sendRaw(kj::arrayPtr(piece.bytes.data(), piece.bytes.size()));
    device->disconnect();
    int status = device->waitForExit();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << piece.name << ": " << status;
  }

  Cable cable{SOCK_SEQPACKET};
  kj::Own<ProcessBench> device;
};

TEST(NetGarbage, BRK01_AFreshProcessEndsInOrder) {
  for (const Garbage& piece : garbage(device(0)))
    Bench().expectOrderlyEnd(piece);
}

TEST(NetGarbage, BRK01_AServingProcessEndsInOrder) {
  for (const Garbage& piece : garbage(device(1000))) {
    Bench bench;
    bench.device->attach();
    bench.activate(*bench.device, testing::FEATURES);
    bench.expectOrderlyEnd(piece);
  }
}

}  // namespace
}  // namespace troupe::net
