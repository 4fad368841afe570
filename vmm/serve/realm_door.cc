#include "vmm/serve/realm_door.h"

#include <capnp/rpc-twoparty.h>
#include <errno.h>
#include <kj/debug.h>
#include <unistd.h>

#include "protos/handle.capnp.h"
#include "vmm/actors/child_log.h"
#include "vmm/actors/refusal.h"
#include "vmm/channels/peer_stream.h"
#include "vmm/front/realm_front_profile.h"
#include "vmm/words/quote.h"
#include "vmm/words/wait_status.h"

namespace troupe::realm {

namespace {

using sandbox::HandedFd;

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 32 * 1024;  // 256 KiB, as the front end's own limit
  options.nestingLimit = 16;
  return options;
}

constexpr size_t FLOW_LIMIT_WORDS = 64 * 1024;

kj::Own<Actor> launchFront(kj::AsyncIoContext& io, ActorLauncher& launcher, const Stage& stage,
                           kj::StringPtr name, int pipe, int client) {
  ActorStart start = {stage.profiles.of(REALM_FRONT_PROFILE),
                      stage.programs.front,
                      "troupe-realm-front",
                      name,
                      "realm-front",
                      nullptr,
                      {},
                      nullptr};
  start.fds.add(HandedFd{"rpc", 0, pipe});
  start.fds.add(HandedFd{"client", 0, client});
  return kj::heap<Actor>(io, launcher, kj::mv(start));
}

// Those of all actors of all guests: the first to divide this process's control group does so for
// all that follow.
uint32_t everyController(const Stage& stage) {
  uint32_t controllers = 0;
  if (stage.jail == sandbox::Jail::OFF) return controllers;
  for (auto profile : playerProfiles())
    controllers |= sandbox::controllersOf(stage.profiles.of(*profile));
  return controllers;
}

}  // namespace

// One client, the process in front of it, and what it has been given.
class RealmDoor::Visit {
 public:
  Visit(RealmDoor& door, kj::String name, SocketPair pair, kj::AutoCloseFd client)
      : door(door),
        name(kj::mv(name)),
        actor(launchFront(door.io, door.launcher, door.stage, this->name, pair.theirs, client)),
        pipe(kj::mv(pair.ours)) {}

  ~Visit() noexcept(false) { door.inspection.forget(*actor); }
  KJ_DISALLOW_COPY(Visit);

  // Until it is over, for whatever reason.
  kj::Promise<void> last() {
    auto ready = actor->started()
                     .then([this]() { return door.inspection.attestWhenReady(*actor); })
                     .catch_([this](kj::Exception&& failure) {
                       door.socket.sayShort(escape(failure.getDescription()));
                       kj::throwFatalException(
                           kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                                         kj::str("the client cannot be served")));
                     });
    auto served = ready.then([this]() {
      door.socket.sayServed();
      return serve();
    });
    return served.exclusiveJoin(ended());
  }

 private:
  struct Connection {
    kj::Own<kj::AsyncCapabilityStream> stream;
    PeerStream messages;
    capnp::TwoPartyVatNetwork network;
    capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;

    Connection(kj::AsyncIoContext& io, kj::AutoCloseFd pipe, Manager::Client manager)
        : stream(io.lowLevelProvider->wrapUnixSocketFd(
              kj::mv(pipe), kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
          messages(*stream, Session::MOST_CALLS),
          network(messages, MAX_FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::SERVER,
                  boundedReading()),
          rpc(capnp::makeRpcServer(network, kj::mv(manager))) {
      messages.watch(network);
      rpc.setFlowLimit(FLOW_LIMIT_WORDS);
    }
  };

  kj::Promise<void> serve() {
    actor->log().live();
    auto session = kj::refcounted<Session>(door.io.provider->getTimer());
    auto manager = kj::heap<ManagerActor>(door.realms, door.terms, kj::mv(session));
    connection = kj::heap<Connection>(door.io, kj::mv(pipe), kj::mv(manager));
    return KJ_ASSERT_NONNULL(connection)->network.onDisconnect();
  }

  // A client that leaves ends its front end, which is nothing to speak of.
  kj::Promise<void> ended() {
    return actor->started().then([this]() { return actor->onExit(); }).then([this](int status) {
      if (status == 0) return;
      KJ_IF_MAYBE (refusal, explainRefusal(*actor, "the front end of a client of realms died")) {
        return printError(kj::str("troupe: ", refusal->render(), "\n"));
      }
      if (WIFSIGNALED(status)) {
        printError(kj::str("troupe: the front end of a client of realms ",
                           describeWaitStatus(status), "\n"));
      }
    });
  }

  RealmDoor& door;
  kj::String name;
  kj::Own<Actor> actor;
  kj::AutoCloseFd pipe;
  kj::Maybe<kj::Own<Connection>> connection;
};

RealmDoor::RealmDoor(kj::AsyncIoContext& io, int listening, Stage& stage, Environments& realms,
                     const RealmTerms& terms)
    : io(io),
      socket(io, listening, ClientSocket::Whom::OWNER_AND_ROOT, "clients of realms"),
      stage(stage),
      realms(realms),
      terms(terms),
      groups("realms", everyController(stage), 0),
      launcher{stage.launcher, groups,
               stage.profileDir.map([](const kj::String& dir) { return dir.asPtr(); })},
      inspection(io.provider->getTimer(), stage.jail),
      visits(*this),
      accepting(kj::evalLater([this]() { return acceptLoop(); }).eagerlyEvaluate(nullptr)) {}

RealmDoor::~RealmDoor() noexcept(false) {}

kj::Promise<void> RealmDoor::acceptLoop() {
  acceptClients();
  return socket.whenReady().then([this]() { return acceptLoop(); });
}

void RealmDoor::acceptClients() {
  while (clients < MOST_CLIENTS) {
    KJ_IF_MAYBE (client, socket.accept()) {
      ++clients;
      visits.add(serve(kj::mv(*client)).attach(kj::defer([this]() { --clients; })).then([this]() {
        acceptClients();  // somebody may have waited for the place
      }));
    } else {
      return;
    }
  }
}

kj::Promise<void> RealmDoor::serve(kj::AutoCloseFd client) {
  kj::Own<Visit> visit;
  auto name = kj::str("realm-front", nextNumber++);
  KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() {
                 visit = kj::heap<Visit>(*this, kj::mv(name), makeSocketPair(), kj::mv(client));
               })) {
    socket.sayShort(escape(failure->getDescription()));
    return kj::READY_NOW;
  }
  auto& one = *visit;
  return one.last().attach(kj::mv(visit)).catch_([](kj::Exception&& failure) {
    // A connection that breaks is the client's affair.
    if (failure.getType() == kj::Exception::Type::DISCONNECTED) return;
    printError(kj::str("troupe: a client of realms: ", escape(failure.getDescription()), "\n"));
  });
}

void RealmDoor::taskFailed(kj::Exception&& failure) {
  printError(kj::str("troupe: a client of realms: ", escape(failure.getDescription()), "\n"));
}

}  // namespace troupe::realm
