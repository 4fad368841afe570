// The real troupe-broker, in its jail: what a `troupe` or a device that somebody took over can
// write to it, before the guest runs and while it does. Needs /dev/kvm.
#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>

#include "broker/boot_fakes.h"
#include "broker/broker_profile.h"
#include "protos/broker.capnp.h"
#include "protos/fd_handle.h"
#include "sandbox/launcher.h"
#include "sandbox/shared_memory.h"
#include "tests/rpc/garbage.h"

namespace troupe::broker {
namespace {

using troupe::testing::Garbage;
using troupe::testing::garbage;
using troupe::testing::Target;

constexpr char EXECUTABLE[] = "broker/troupe-broker";
constexpr uint64_t RAM_BYTES = 64 << 20;

struct Pair {
  Pair() {
    int ends[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
    ours = kj::AutoCloseFd(ends[0]);
    theirs = kj::AutoCloseFd(ends[1]);
  }
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};

// As little of a device as the broker takes for one.
class QuietDevice final: public Device::Server {
 public:
  kj::Promise<void> describe(DescribeContext context) override {
    auto info = context.getResults().initInfo();
    info.setDeviceType(4);
    info.setQueueSizes({8});
    return kj::READY_NOW;
  }
  kj::Promise<void> attach(AttachContext) override { return kj::READY_NOW; }
};

class JailedBroker {
 public:
  JailedBroker() {
    int log[2];
    KJ_SYSCALL(pipe2(log, O_CLOEXEC | O_NONBLOCK));
    logRead = kj::AutoCloseFd(log[0]);
    kj::AutoCloseFd logWrite(log[1]);
    kj::AutoCloseFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    kj::AutoCloseFd program(open(EXECUTABLE, O_RDONLY | O_CLOEXEC));
    Pair rpc;
    auto ram = sandbox::makeSharedMemory("guest-ram", RAM_BYTES);
    sandbox::HandedFd fds[] = {{"log", 0, logWrite},
                               {"rpc", 0, rpc.theirs},
                               {"kvm", 0, kvm},
                               {"ram", 0, ram.writable},
                               {"ram_readonly", 0, ram.readOnly}};
    child = launcher.launch(BROKER_PROFILE, program, "troupe-broker", "broker", fds, nullptr);
    pipe = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(rpc.ours));
    await(child->started());
  }

  template <typename T>
  T await(kj::Promise<T> promise) {
    return io.provider->getTimer()
        .timeoutAfter(60 * kj::SECONDS, kj::mv(promise))
        .wait(io.waitScope);
  }

  // It may hang up before it has read everything, and then it has read enough.
  void write(kj::AsyncIoStream& stream, const Garbage& piece) {
    kj::runCatchingExceptions(
        [&]() { await(stream.write(piece.bytes.data(), piece.bytes.size())); });
  }

  // Neither a signal of the filter's nor one of the processor's, nor a hang, nor a failure of its
  // own.
  void expectOrderlyEnd(const Garbage& piece) {
    int status = await(child->onExit());
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << piece.name << ": " << status;
  }

  ~JailedBroker() noexcept(false) {
    // What it has to say is of interest when a test fails.
    char text[4096];
    ssize_t got;
    while ((got = ::read(logRead, text, sizeof(text))) > 0)
      std::cerr.write(text, got);
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::Own<kj::AsyncCapabilityStream> pipe;

 private:
  sandbox::Launcher launcher{io.unixEventPort, sandbox::Jail::ON};
  kj::AutoCloseFd logRead;
  kj::Own<sandbox::Child> child;
};

TEST(BrokerGarbage, BRK01_FromTheSideOfTroupe) {
  for (const Garbage& piece : garbage(Target{capnp::typeId<Broker>(), 9})) {
    JailedBroker broker;
    broker.write(*broker.pipe, piece);
    broker.pipe = nullptr;
    broker.expectOrderlyEnd(piece);
  }
}

// A guest that does nothing for ever, its vCPUs in the guest when the device goes mad.
TEST(BrokerGarbage, BRK01_FromTheSideOfADeviceWhileTheGuestRuns) {
  for (const Garbage& piece : garbage(Target{capnp::typeId<DeviceHost>(), 2, 1000})) {
    SCOPED_TRACE(piece.name);
    JailedBroker broker;
    Pair devicePipe;
    auto deviceEnd = broker.io.lowLevelProvider->wrapUnixSocketFd(kj::mv(devicePipe.ours));
    {
      capnp::TwoPartyVatNetwork network(*deviceEnd, 64, capnp::rpc::twoparty::Side::SERVER);
      auto device = capnp::makeRpcServer(network, Device::Client(kj::heap<QuietDevice>()));
      capnp::TwoPartyClient client(*broker.pipe, 8);
      auto vm = client.bootstrap().castAs<Broker>();

      auto create = vm.createRequest();
      create.initConfig().setCpus(2);
      create.getConfig().setMemoryBytes(RAM_BYTES);
      broker.await(create.send().ignoreResult());
      auto add = vm.addDeviceRequest();
      add.setName("rng0");
      add.setPipe(kj::heap<FdHandle>(kj::mv(devicePipe.theirs)));
      broker.await(add.send().ignoreResult());
      auto load = vm.loadRequest();
      load.initFiles().setKernel(
          kj::heap<FdHandle>(testing::fileOf(testing::pvhKernel(testing::haltForever()))));
      broker.await(load.send().ignoreResult());
      broker.await(vm.prepareRequest().send().ignoreResult());
      broker.await(vm.runRequest().send().ignoreResult());

      broker.write(*deviceEnd, piece);
      deviceEnd->shutdownWrite();
      broker.await(vm.waitForEndRequest().send().then([&](auto&& response) {
        EXPECT_EQ(response.getEnd().getReason(), EndReason::DEVICE_LOST) << piece.name;
        EXPECT_EQ(response.getEnd().getDevice(), 0) << piece.name;
      }));
    }
    broker.pipe = nullptr;
    broker.expectOrderlyEnd(piece);
  }
}

}  // namespace
}  // namespace troupe::broker
