#include "vmm/front/realm_front.h"

#include <capnp/rpc-twoparty.h>
#include <kj/debug.h>

#include "protos/handle.capnp.h"
#include "vmm/channels/peer_stream.h"
#include "vmm/front/realm_membrane.h"

namespace troupe::front {

namespace {

constexpr uint32_t MOST_CALLS = 64;                  // of the client, open at once
constexpr size_t LONGEST_MESSAGE_WORDS = 32 * 1024;  // 256 KiB
constexpr size_t FLOW_LIMIT_WORDS = 64 * 1024;       // of calls under way

using Network = capnp::TwoPartyVatNetwork;
using Rpc = capnp::RpcSystem<capnp::rpc::twoparty::VatId>;

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = LONGEST_MESSAGE_WORDS;
  options.nestingLimit = 16;
  return options;
}

kj::Own<kj::AsyncCapabilityStream> streamOn(kj::AsyncIoContext& io, int fd) {
  return io.lowLevelProvider->wrapUnixSocketFd(
      fd,
      kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC | kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK);
}

// The way to `troupe`: the fds and messages are those it says.
struct Inside {
  kj::Own<kj::AsyncCapabilityStream> stream;
  Network network;
  Rpc rpc;

  explicit Inside(kj::Own<kj::AsyncCapabilityStream> troupe)
      : stream(kj::mv(troupe)),
        network(*stream, MAX_FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::CLIENT),
        rpc(capnp::makeRpcClient(network)) {}

  realm::Manager::Client manager() {
    capnp::MallocMessageBuilder message(8);
    auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
    vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
    return rpc.bootstrap(vatId).castAs<realm::Manager>();
  }
};

struct Outside {
  kj::Own<kj::AsyncCapabilityStream> stream;
  PeerStream messages;
  Network network;
  Rpc rpc;

  Outside(kj::Own<kj::AsyncCapabilityStream> client, realm::Manager::Client manager)
      : stream(kj::mv(client)),
        messages(*stream, MOST_CALLS),
        network(messages, MAX_FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::SERVER,
                boundedReading()),
        rpc(capnp::makeRpcServer(network, kj::mv(manager))) {
    messages.watch(network);
    rpc.setFlowLimit(FLOW_LIMIT_WORDS);
  }
};

}  // namespace

kj::Promise<void> serveRealms(kj::Own<kj::AsyncCapabilityStream> client,
                              kj::Own<kj::AsyncCapabilityStream> troupe) {
  auto inside = kj::heap<Inside>(kj::mv(troupe));
  auto ended = inside->network.onDisconnect();
  // `troupe` answers once it has looked at this process, whose fds are then those of its profile:
  // what the client has sent already, files among it, is read afterwards.
  auto manager = inside->manager();
  auto left = manager.whenResolved().then([client = kj::mv(client), manager]() mutable {
    auto outside =
        kj::heap<Outside>(kj::mv(client), capnp::membrane(kj::mv(manager), makeRealmMembrane()));
    return outside->network.onDisconnect().attach(kj::mv(outside));
  });
  return left.exclusiveJoin(kj::mv(ended)).attach(kj::mv(inside));
}

kj::Promise<void> serveRealms(kj::AsyncIoContext& io, int client, int troupe) {
  return serveRealms(streamOn(io, client), streamOn(io, troupe));
}

}  // namespace troupe::front
