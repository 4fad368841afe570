#include "vmm/control/front_door.h"

#include <capnp/rpc-twoparty.h>
#include <kj/debug.h>
#include <poll.h>
#include <unistd.h>

#include "protos/fd_handle.h"
#include "vmm/actors/refusal.h"
#include "vmm/channels/peer_stream.h"
#include "vmm/control/client_socket.h"
#include "vmm/front/front.capnp.h"
#include "vmm/words/quote.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

// Together as many as the front end has room for.
constexpr uint32_t MOST_CLIENTS = 16;
constexpr uint32_t MOST_METRICS_CLIENTS = 4;

// Calls of the front end that may be open at once: many for each of its clients.
constexpr uint32_t MOST_CALLS = 64 * MOST_CLIENTS;

// A front end that ends was fed something hostile, so the next one comes slowly.
constexpr kj::Duration RESTART_PAUSE = 1 * kj::SECONDS;

// None is wanted; but with 0 Cap'n Proto 0.9 would send none either. What comes is closed unread.
constexpr uint32_t ACCEPTED_FDS = 1;

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  // Its calls have no long parameters, but the limit is for both directions: as the front end's
  // own, for what is told of the jails of a VM with every disk.
  options.traversalLimitInWords = 32 * 1024;
  options.nestingLimit = 16;
  return options;
}

}  // namespace

struct FrontDoor::Door {
  enum class Kind { CONTROL, METRICS };

  Door(kj::AsyncIoContext& io, Kind kind, int fd)
      : kind(kind),
        fd(fd),
        socket(io, fd,
               kind == Kind::METRICS ? ClientSocket::Whom::ALL : ClientSocket::Whom::OWNER_AND_ROOT,
               kind == Kind::METRICS ? "readers of metrics" : "clients of the control socket") {}

  bool isFull() const {
    return clients >= (kind == Kind::CONTROL ? MOST_CLIENTS : MOST_METRICS_CLIENTS);
  }

  const Kind kind;
  const int fd;
  ClientSocket socket;
  uint32_t clients = 0;  // of the front end that runs
};

struct FrontDoor::Front final: private kj::TaskSet::ErrorHandler {
  kj::Own<Actor> actor;
  kj::Own<kj::AsyncCapabilityStream> stream;
  PeerStream messages;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
  FrontEnd::Client client;
  kj::TaskSet serving;

  Front(kj::AsyncIoContext& io, Launch& launch, SocketPair pair)
      : actor(launch(pair.theirs)),
        stream(io.lowLevelProvider->wrapUnixSocketFd(
            kj::mv(pair.ours), kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
        messages(*stream, MOST_CALLS),
        network(messages, ACCEPTED_FDS, capnp::rpc::twoparty::Side::CLIENT, boundedReading()),
        rpc(capnp::makeRpcClient(network)),
        client(bootstrap()),
        serving(*this) {
    messages.watch(network);
    rpc.setFlowLimit(4 * 1024);  // what it may have asked and not yet been told, in words
    actor->log().live();
  }

  FrontEnd::Client bootstrap() {
    capnp::MallocMessageBuilder message(8);
    auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
    vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
    return rpc.bootstrap(vatId).castAs<FrontEnd>();
  }

  void taskFailed(kj::Exception&&) override {}
};

FrontDoor::FrontDoor(kj::AsyncIoContext& io, int control, kj::Maybe<int> metrics, Vm::Client vm,
                     Launch launch, Attest attest)
    : io(io), vm(kj::mv(vm)), launch(kj::mv(launch)), attest(kj::mv(attest)), life(nullptr) {
  doors.add(kj::heap<Door>(io, Door::Kind::CONTROL, control));
  KJ_IF_MAYBE (socket, metrics) {
    doors.add(kj::heap<Door>(io, Door::Kind::METRICS, *socket));
  }
  life = runFronts().eagerlyEvaluate(nullptr);
}

FrontDoor::~FrontDoor() noexcept(false) {}

kj::Maybe<Actor&> FrontDoor::actor() {
  KJ_IF_MAYBE (front, running) {
    return *(*front)->actor;
  }
  return nullptr;
}

// At any of the doors.
kj::Promise<void> FrontDoor::untilClientWaits() {
  kj::Promise<void> any = kj::NEVER_DONE;
  for (auto& door : doors)
    any = any.exclusiveJoin(untilClientWaits(*door));
  return any;
}

kj::Promise<void> FrontDoor::untilClientWaits(Door& door) {
  pollfd look = {door.fd, POLLIN, 0};
  if (poll(&look, 1, 0) == 1) return kj::READY_NOW;
  return door.socket.whenReady().then([this, &door]() { return untilClientWaits(door); });
}

kj::Promise<void> FrontDoor::runFronts() {
  return untilClientWaits()
      .then([this]() { return runFront(); })
      .catch_([this](kj::Exception&& exception) {
        // No fd or no memory for its process: who waits is served when there is.
        if (exception.getType() == kj::Exception::Type::OVERLOADED) {
          return doors[0]->socket.sayShort(escape(exception.getDescription()));
        }
        printError(kj::str("troupe: the front end of the control socket: ",
                           escape(exception.getDescription()), "\n"));
      })
      .then([this]() {
        running = nullptr;
        return io.provider->getTimer().afterDelay(RESTART_PAUSE);
      })
      .then([this]() { return runFronts(); });
}

kj::Promise<void> FrontDoor::runFront() {
  for (auto& door : doors)
    door->clients = 0;
  auto& front = *running.emplace(kj::heap<Front>(io, launch, makeSocketPair()));
  auto serving = front.client.readyRequest()
                     .send()
                     .ignoreResult()
                     .then([this, &front]() { return attest(*front.actor); })
                     .then([this, &front]() {
                       auto loops = KJ_MAP(door, doors) {
                         return acceptLoop(front, *door);
                       };
                       return kj::joinPromises(kj::mv(loops));
                     });
  auto ended = front.actor->started().then([&front]() { return front.actor->onExit(); });
  return serving.exclusiveJoin(ended.then([&front](int status) {
    KJ_IF_MAYBE (refusal, explainRefusal(*front.actor,
                                         "the front end of the control socket died, "
                                         "and the next client gets a new one")) {
      return printError(kj::str("troupe: ", refusal->render(), "\n"));
    }
    printError(kj::str("troupe: the front end of the control socket ", describeWaitStatus(status),
                       "; the next client gets a new one\n"));
  }));
}

kj::Promise<void> FrontDoor::acceptLoop(Front& front, Door& door) {
  acceptClients(front, door);
  return door.socket.whenReady().then([this, &front, &door]() { return acceptLoop(front, door); });
}

void FrontDoor::acceptClients(Front& front, Door& door) {
  while (!door.isFull()) {
    KJ_IF_MAYBE (connection, door.socket.accept()) {
      door.socket.sayServed();
      door.clients++;
      // A client that could not be served has lost its connection, which is all it needs to know.
      auto served = serve(front, door, kj::mv(*connection)).catch_([](kj::Exception&&) {});
      front.serving.add(served.then([this, &front, &door]() {
        door.clients--;
        acceptClients(front, door);  // somebody may have waited for the place
      }));
    } else {
      return;
    }
  }
}

kj::Promise<void> FrontDoor::serve(Front& front, Door& door, kj::AutoCloseFd connection) {
  auto handle = kj::heap<FdHandle>(kj::mv(connection));
  switch (door.kind) {
    case Door::Kind::CONTROL: {
      auto request = front.client.serveRequest();
      request.setConnection(kj::mv(handle));
      request.setVm(vm);
      return request.send().ignoreResult();
    }
    case Door::Kind::METRICS: {
      auto request = front.client.serveMetricsRequest();
      request.setConnection(kj::mv(handle));
      request.setVm(vm);
      return request.send().ignoreResult();
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace troupe
