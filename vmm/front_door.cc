#include "vmm/front_door.h"

#include <capnp/rpc-twoparty.h>
#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/fd_handle.h"
#include "vmm/front/front.capnp.h"
#include "vmm/peer_stream.h"
#include "vmm/quote.h"
#include "vmm/refusal.h"
#include "vmm/wait_status.h"

namespace troupe {

namespace {

constexpr uint32_t MOST_CLIENTS = 16;

// Calls of the front end that may be open at once: many for each of its clients.
constexpr uint32_t MOST_CALLS = 64 * MOST_CLIENTS;

// A front end that ends was fed something hostile, so the next one comes slowly.
constexpr kj::Duration RESTART_PAUSE = 1 * kj::SECONDS;

// None is wanted; but with 0 Cap'n Proto 0.9 would send none either. What comes is closed unread.
constexpr uint32_t ACCEPTED_FDS = 1;

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 8 * 1024;  // 64 KiB: its calls have no long parameters
  options.nestingLimit = 16;
  return options;
}

bool mayEnter(int connection) {
  ucred peer;
  socklen_t length = sizeof(peer);
  if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == geteuid() || peer.uid == 0;
}

// The next client that may enter; none when nobody waits.
kj::Maybe<kj::AutoCloseFd> acceptOne(int socket) {
  for (;;) {
    int raw = accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (raw < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return nullptr;
    }
    kj::AutoCloseFd connection(raw);
    if (mayEnter(connection)) return kj::mv(connection);
  }
}

}  // namespace

struct FrontDoor::Front final: private kj::TaskSet::ErrorHandler {
  kj::Own<Actor> actor;
  kj::Own<kj::AsyncCapabilityStream> stream;
  PeerStream messages;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
  FrontEnd::Client client;
  uint32_t clients = 0;
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

FrontDoor::FrontDoor(kj::AsyncIoContext& io, int socket, Vm::Client vm, Launch launch,
                     Attest attest)
    : io(io),
      socket(socket),
      vm(kj::mv(vm)),
      launch(kj::mv(launch)),
      attest(kj::mv(attest)),
      observer(io.unixEventPort, socket, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      life(runFronts().eagerlyEvaluate(nullptr)) {}

FrontDoor::~FrontDoor() noexcept(false) {}

kj::Maybe<Actor&> FrontDoor::actor() {
  KJ_IF_MAYBE (front, running) {
    return *(*front)->actor;
  }
  return nullptr;
}

kj::Promise<void> FrontDoor::untilClientWaits() {
  pollfd look = {socket, POLLIN, 0};
  if (poll(&look, 1, 0) == 1) return kj::READY_NOW;
  return observer.whenBecomesReadable().then([this]() { return untilClientWaits(); });
}

kj::Promise<void> FrontDoor::runFronts() {
  return untilClientWaits()
      .then([this]() { return runFront(); })
      .catch_([](kj::Exception&& exception) {
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
  auto& front = *running.emplace(kj::heap<Front>(io, launch, makeSocketPair()));
  auto serving = front.client.readyRequest()
                     .send()
                     .ignoreResult()
                     .then([this, &front]() { return attest(*front.actor); })
                     .then([this, &front]() { return acceptLoop(front); });
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

kj::Promise<void> FrontDoor::acceptLoop(Front& front) {
  acceptClients(front);
  return observer.whenBecomesReadable().then([this, &front]() { return acceptLoop(front); });
}

void FrontDoor::acceptClients(Front& front) {
  while (front.clients < MOST_CLIENTS) {
    KJ_IF_MAYBE (connection, acceptOne(socket)) {
      auto request = front.client.serveRequest();
      request.setConnection(kj::heap<FdHandle>(kj::mv(*connection)));
      request.setVm(vm);
      front.clients++;
      // A client that could not be served has lost its connection, which is all it needs to know.
      auto served = request.send().ignoreResult().catch_([](kj::Exception&&) {});
      front.serving.add(served.then([this, &front]() {
        front.clients--;
        acceptClients(front);  // somebody may have waited for the place
      }));
    } else {
      return;
    }
  }
}

}  // namespace troupe
