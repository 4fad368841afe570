// A front end that says it is ready and has not taken the filter of that stage.
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <unistd.h>

#include "sandbox/actor_setup.h"
#include "vmm/front/front_actor.h"

namespace {

class NoSlots final: public troupe::front::ConnectionSlots {
 public:
  Placed place(int) override { _exit(1); }
  void release(uint32_t) override {}
};

}  // namespace

int main() {
  troupe::sandbox::ActorSetup setup;
  auto io = kj::setupAsyncIo();
  NoSlots slots;
  auto stream = io.lowLevelProvider->wrapUnixSocketFd(troupe::sandbox::RPC_FD,
                                                      kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC);
  capnp::TwoPartyVatNetwork network(*stream, troupe::MAX_FDS_PER_MESSAGE,
                                    capnp::rpc::twoparty::Side::SERVER);
  auto rpc = capnp::makeRpcServer(network, kj::heap<troupe::front::FrontActor>(io, slots, []() {}));
  network.onDisconnect().wait(io.waitScope);
  _exit(0);
}
