#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <unistd.h>

#include "sandbox/actor_setup.h"
#include "sandbox/fair_loop.h"
#include "sandbox/last_words.h"
#include "vmm/front/front_actor.h"
#include "vmm/front/realm_front.h"
#include "vmm/record/replayer_main.h"

// The jailed front ends: that of one VM's control socket, and those of the clients of realms, one
// each. They end outside connections and decode their bytes, so that `troupe` need not. So does the
// one that reads a recording.
namespace troupe::front {

namespace {

// The connections of clients, at the numbers the profile gives them.
class ProfileSlots final: public ConnectionSlots {
 public:
  explicit ProfileSlots(const sandbox::ActorSetup& setup)
      : setup(setup), taken(kj::heapArray<bool>(MOST_CLIENTS)) {
    for (auto& slot : taken)
      slot = false;
  }

  Placed place(int fd) override {
    for (uint32_t slot = 0; slot < MOST_CLIENTS; slot++) {
      if (taken[slot]) continue;
      taken[slot] = true;
      return {slot, kj::AutoCloseFd(setup.place("client", slot, fd))};
    }
    KJ_FAIL_REQUIRE("more connections than there is room for");
  }

  void release(uint32_t slot) override { taken[slot] = false; }

 private:
  const sandbox::ActorSetup& setup;
  kj::Array<bool> taken;
};

void serve() {
  sandbox::ActorSetup setup;
  auto io = sandbox::setupFairIo();
  ProfileSlots slots(setup);
  auto stream = io.lowLevelProvider->wrapUnixSocketFd(sandbox::RPC_FD,
                                                      kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC);
  capnp::TwoPartyVatNetwork network(*stream, MAX_FDS_PER_MESSAGE,
                                    capnp::rpc::twoparty::Side::SERVER);
  auto rpc = capnp::makeRpcServer(network, kj::heap<FrontActor>(io, slots, [&setup]() {
                                    setup.enter("ready");
                                    setup.enter("run");
                                  }));
  network.onDisconnect().wait(io.waitScope);
}

void serveOneOfRealms() {
  sandbox::ActorSetup setup;
  auto io = sandbox::setupFairIo();
  int client = setup.fd("client");
  setup.enter("ready");
  setup.enter("run");
  serveRealms(io, client, sandbox::RPC_FD).wait(io.waitScope);
}

}  // namespace

}  // namespace troupe::front

namespace {

// What this executable plays, by the name that it is started under.
struct Actor {
  const char* program;
  void (*serve)();
  const char* ends;
};

constexpr Actor ACTORS[] = {
    {"troupe-realm-front", &troupe::front::serveOneOfRealms, "the front end ends"},
    {"troupe-replayer", &troupe::playReplayer, "the replayer ends"},
    {"", &troupe::front::serve, "the front end ends"},
};

const Actor& chosen(int argc, char* argv[]) {
  for (auto& actor : ACTORS)
    if (argc > 0 && kj::StringPtr(argv[0]).endsWith(actor.program)) return actor;
  return ACTORS[kj::size(ACTORS) - 1];
}

}  // namespace

int main(int argc, char* argv[]) {
  auto& actor = chosen(argc, argv);
  // Not through destructors: `troupe` has gone, and nothing is left to be told.
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&actor]() { actor.serve(); })) {
    troupe::sandbox::sayLastWords(actor.ends, *exception);
    _exit(1);
  }
  _exit(0);
}
