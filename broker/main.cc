// troupe-broker: the process that owns one VM (docs/architecture.md). It is started by `troupe` and
// served by nobody else.
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <malloc.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/broker_actor.h"
#include "broker/loop_mailbox.h"
#include "protos/handle.capnp.h"
#include "sandbox/actor_setup.h"
#include "sandbox/fair_loop.h"
#include "sandbox/last_words.h"

namespace troupe::broker {
namespace {

// `troupe` sends everything at once: a pipe for each PCI slot, kernel, initrd.
constexpr kj::uint MOST_FDS_ON_THEIR_WAY = 31 + 2;

class ProfileFds final: public FdTable {
 public:
  explicit ProfileFds(const sandbox::ActorSetup& setup) : setup(setup) {}

  kj::AutoCloseFd place(kj::StringPtr name, uint32_t index, int fd) override {
    return kj::AutoCloseFd(setup.place(name, index, fd));
  }

 private:
  const sandbox::ActorSetup& setup;
};

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

void serve() {
  // One heap for all threads: what a vCPU thread allocates comes from where the main loop's does,
  // and no thread maps one of its own.
  mallopt(M_ARENA_MAX, 1);
  Vcpu::claimKickSignal();
  sandbox::ActorSetup setup;
  auto io = sandbox::setupFairIo();
  setup.expectFds(MOST_FDS_ON_THEIR_WAY);
  ProfileFds fds(setup);

  // The VM is made before anybody asks, while `troupe` still starts the devices. If there is none,
  // create() answers why.
  kj::AutoCloseFd kvm(setup.fd("kvm"));
  kj::Maybe<kj::Own<KvmVm>> vm;
  auto refusal = kj::runCatchingExceptions([&]() { vm = kj::heap<KvmVm>(kvm, fds); });
  auto takeVm = [&]() -> KvmVm& {
    KJ_IF_MAYBE (exception, refusal) kj::throwFatalException(kj::cp(*exception));
    return *KJ_ASSERT_NONNULL(vm);
  };

  LoopMailbox mailbox(io.unixEventPort, fds.place("mailbox", 0, makeEventFd()));
  auto posted = mailbox.serve();
  kj::Maybe<int> serial;
  if (setup.fdCount("serial") > 0) serial = setup.fd("serial");
  auto hostMemory = kj::heapArrayBuilder<kj::AutoCloseFd>(setup.fdCount("host_memory"));
  while (!hostMemory.isFull())
    hostMemory.add(setup.fd("host_memory", hostMemory.size()));
  auto actor = kj::heap<BrokerActor>(BrokerGround{io, mailbox, fds, takeVm, serial, setup.fd("ram"),
                                                  setup.fd("ram_readonly"), hostMemory.finish(),
                                                  [&setup, &kvm](kj::StringPtr stage) {
                                                    if (stage == "ready") kvm = nullptr;
                                                    setup.enter(stage);
                                                  }});

  auto pipe = io.lowLevelProvider->wrapUnixSocketFd(sandbox::RPC_FD,
                                                    kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
  capnp::TwoPartyVatNetwork network(*pipe, MAX_FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::SERVER);
  auto rpc = capnp::makeRpcServer(network, Broker::Client(kj::mv(actor)));

  // The VM lives as long as someone is there to see its end. Nothing is taken apart, whichever way
  // it ends: vCPUs may be anywhere, and the kernel takes back everything at once.
  auto served = kj::runCatchingExceptions(
      [&]() { network.onDisconnect().exclusiveJoin(kj::mv(posted)).wait(io.waitScope); });
  KJ_IF_MAYBE (exception, served) {
    KJ_LOG(ERROR, "troupe-broker fails", *exception);
    _exit(1);
  }
  _exit(0);
}

}  // namespace
}  // namespace troupe::broker

int main() {
  auto problem = kj::runCatchingExceptions([]() { troupe::broker::serve(); });
  KJ_IF_MAYBE (exception, problem) {
    troupe::sandbox::sayLastWords("the broker fails", *exception);
  }
  return 1;
}
