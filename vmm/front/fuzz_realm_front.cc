// Fuzzes what a client of realms says to the front end that reads it: calls of all interfaces of
// protos/realm.capnp and of none, capabilities and fds of the client's own, bytes spoiled. What
// gets through to `troupe` is a call that realms have, of an open number; what the client held is
// gone with it.
#include <capnp/rpc-twoparty.h>
#include <capnp/schema.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <unistd.h>

#include "protos/handle.capnp.h"
#include "protos/realm.capnp.h"
#include "sandbox/fuzz_message.h"
#include "tests/fuzz/allocations.h"
#include "tests/fuzz/fd_pipe.h"
#include "tests/fuzz/finding.h"
#include "vmm/front/fuzz_conversation.h"
#include "vmm/front/realm_front.h"

namespace troupe::front {
namespace {

using fuzz::finding;
using fuzz::Op;

constexpr uint32_t MOST_OPEN_CALLS = 64;
constexpr uint32_t MOST_OBJECTS = 512;     // more than an input has calls
constexpr uint64_t MOST_BYTES = 24 << 20;  // of heap, for an input of 1 KiB
constexpr size_t FDS_SENT = 2;

template <typename... Interfaces>
bool isCallOfAny(uint64_t interfaceId, uint16_t methodId) {
  static const size_t COUNTS[] = {capnp::Schema::from<Interfaces>().getMethods().size()...};
  const uint64_t ids[] = {capnp::typeId<Interfaces>()...};
  for (size_t i = 0; i < sizeof...(Interfaces); i++)
    if (ids[i] == interfaceId) return methodId < COUNTS[i];
  return false;
}

// What `troupe` sees of one client.
struct Seen {
  uint32_t open = 0;     // calls
  uint32_t objects = 0;  // that the client may hold
};

// Plays an object of `troupe`'s, which believes that a call is one of realms' and counts none.
template <typename Interface>
class Played: public Interface::Server {
 public:
  explicit Played(Seen& seen) : seen(seen) {
    if (++seen.objects > MOST_OBJECTS) finding("objects without bound");
  }
  ~Played() noexcept(false) { --seen.objects; }

  capnp::Capability::Server::DispatchCallResult dispatchCall(
      uint64_t interfaceId, uint16_t methodId,
      capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override {
    using namespace realm;
    // The last: of an object of `troupe`'s own that a client hands back as its acceptor, which is
    // called here and not by the client.
    bool isKnown =
        isCallOfAny<Manager, Realm, Guest, BalloonController, HostVsockEndpoint, HostVsockAcceptor>(
            interfaceId, methodId);
    if (!isKnown) finding("a call that realms do not have");
    if (++seen.open > MOST_OPEN_CALLS) finding("more calls open than a client may have");
    auto result = Interface::Server::dispatchCall(interfaceId, methodId, context);
    result.promise = result.promise.attach(kj::defer([&seen = seen]() { --seen.open; }));
    return result;
  }

 protected:
  Seen& seen;
};

// An fd for whoever passes one, for good.
int nullFd() {
  static const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  return fd;
}

class PassedNull final: public Handle::Server {
 public:
  kj::Maybe<int> getFd() override { return nullFd(); }
};

class PlayedEndpoint final: public Played<realm::HostVsockEndpoint>,
                            private kj::TaskSet::ErrorHandler {
 public:
  explicit PlayedEndpoint(Seen& seen) : Played(seen), accepting(*this) {}
  kj::Promise<void> listen(ListenContext context) override {
    auto request = context.getParams().getAcceptor().acceptRequest();
    request.setSrcCid(3);
    request.setPort(context.getParams().getPort());
    accepting.add(request.send()
                      .then([](auto&& answer) { return answer.getSocket().getFd(); })
                      .ignoreResult());
    return kj::READY_NOW;
  }
  kj::Promise<void> connect(ConnectContext context) override {
    return context.getParams().getSocket().getFd().ignoreResult();
  }

 private:
  void taskFailed(kj::Exception&&) override {}
  kj::TaskSet accepting;
};

class PlayedBalloon final: public Played<realm::BalloonController> {
 public:
  using Played::Played;
  kj::Promise<void> getNumPages(GetNumPagesContext) override { return kj::READY_NOW; }
  kj::Promise<void> requestNumPages(RequestNumPagesContext) override { return kj::READY_NOW; }
};

class PlayedGuest final: public Played<realm::Guest> {
 public:
  using Played::Played;
  kj::Promise<void> getSerial(GetSerialContext context) override {
    context.getResults().setSocket(kj::heap<PassedNull>());
    return kj::READY_NOW;
  }
  kj::Promise<void> getHostVsockEndpoint(GetHostVsockEndpointContext context) override {
    context.getResults().setEndpoint(kj::heap<PlayedEndpoint>(seen));
    return kj::READY_NOW;
  }
  kj::Promise<void> stop(StopContext) override { return kj::READY_NOW; }
  kj::Promise<void> waitForEnd(WaitForEndContext context) override {
    context.allowCancellation();
    return kj::NEVER_DONE;
  }
  kj::Promise<void> waitForStart(WaitForStartContext context) override {
    context.allowCancellation();
    return kj::NEVER_DONE;
  }
};

class PlayedRealm final: public Played<realm::Realm> {
 public:
  using Played::Played;
  kj::Promise<void> launchInstance(LaunchInstanceContext context) override {
    kj::Vector<kj::Promise<kj::Maybe<int>>> files;
    for (auto disk : context.getParams().getLaunchInfo().getBlockDevices())
      files.add(disk.getFile().getFd());
    context.getResults().setController(kj::heap<PlayedGuest>(seen));
    return kj::joinPromises(files.releaseAsArray()).ignoreResult();
  }
  kj::Promise<void> connectToInstance(ConnectToInstanceContext context) override {
    context.getResults().setController(kj::heap<PlayedGuest>(seen));
    return kj::READY_NOW;
  }
  kj::Promise<void> connectToBalloon(ConnectToBalloonContext context) override {
    context.getResults().setController(kj::heap<PlayedBalloon>(seen));
    return kj::READY_NOW;
  }
  kj::Promise<void> getHostVsockEndpoint(GetHostVsockEndpointContext context) override {
    context.getResults().setEndpoint(kj::heap<PlayedEndpoint>(seen));
    return kj::READY_NOW;
  }
};

class PlayedManager final: public Played<realm::Manager> {
 public:
  using Played::Played;
  kj::Promise<void> create(CreateContext context) override {
    context.getResults().setRealm(kj::heap<PlayedRealm>(seen));
    return kj::READY_NOW;
  }
  kj::Promise<void> connect(ConnectContext context) override {
    context.getResults().setRealm(kj::heap<PlayedRealm>(seen));
    return kj::READY_NOW;
  }
  kj::Promise<void> list(ListContext context) override {
    context.getResults().initEnvironments(1)[0].setLabel("a realm");
    return kj::READY_NOW;
  }
  kj::Promise<void> listGuests(ListGuestsContext) override { return kj::READY_NOW; }
};

template <typename Client>
Client anyCapability() {
  return Client(KJ_EXCEPTION(FAILED, "only its place in the message counts"));
}

void fillLaunch(realm::LaunchInfo::Builder info, const Op& op, kj::StringPtr text) {
  info.setUrl(text);
  info.setLabel(text);
  auto disks = info.initBlockDevices(op.c % 3);
  for (auto disk : disks)
    disk.setFile(anyCapability<Handle::Client>());
  info.initGuestConfig().initCmdlineAdd(op.d % 100);
}

// A method of one of the interfaces, or of none; with parameters where it has any.
void fillMethod(capnp::rpc::Call::Builder call, capnp::AnyPointer::Builder content, const Op& op,
                kj::StringPtr text) {
  using namespace realm;
  uint16_t method = op.b % 16;
  uint64_t interface;
  switch (op.b >> 4 & 7) {
    case 0:
      interface = capnp::typeId<Manager>();
      content.initAs<Manager::CreateParams>().setLabel(text);
      break;
    case 1:
      interface = capnp::typeId<Realm>();
      if (method == 0) {
        fillLaunch(content.initAs<Realm::LaunchInstanceParams>().initLaunchInfo(), op, text);
      } else {
        content.initAs<Realm::ConnectToInstanceParams>().setCid(op.c);
      }
      break;
    case 2:
      interface = capnp::typeId<Guest>();
      content.initAs<Guest::StopParams>().setForce(op.c & 1);
      break;
    case 3:
      interface = capnp::typeId<BalloonController>();
      content.initAs<BalloonController::RequestNumPagesParams>().setRequestedNumPages(op.c);
      break;
    case 4: {
      interface = capnp::typeId<HostVsockEndpoint>();
      if (method == 0) {
        auto params = content.initAs<HostVsockEndpoint::ListenParams>();
        params.setPort(op.c);
        params.setAcceptor(anyCapability<HostVsockAcceptor::Client>());
      } else {
        auto params = content.initAs<HostVsockEndpoint::ConnectParams>();
        params.setCid(op.c);
        params.setSocket(anyCapability<Handle::Client>());
      }
      break;
    }
    case 5:
      interface = capnp::typeId<HostVsockAcceptor>();
      break;
    case 6:
      interface = capnp::typeId<GuestVsockEndpoint>();
      break;
    default:
      interface = op.d;
      break;
  }
  call.setInterfaceId(interface);
  call.setMethodId(method);
}

void fillCall(capnp::rpc::Call::Builder call, const Op& op,
              const sandbox::fuzzing::Operations& ops) {
  auto params = call.initParams();
  capnp::BuilderCapabilityTable table;
  fillMethod(call, table.imbue(params.getContent()), op, ops.text(TEXT_KIND, "guest"));
  auto capabilities = params.initCapTable(table.getTable().size());
  for (auto one : capabilities) {
    switch (op.d % 4) {
      case 0:
        one.setReceiverHosted(op.d >> 8 & 3);
        break;
      case 1:
        one.initReceiverAnswer().setQuestionId(op.d >> 8 & 15);
        break;
      case 2:
        one.setSenderPromise(op.d >> 8 & 3);
        break;
      default:
        one.setSenderHosted(op.d >> 8 & 3);
        one.setAttachedFd(op.d >> 16 & 3);
        break;
    }
  }
}

// The side of `troupe`.
struct Troupe {
  Troupe(kj::AsyncCapabilityStream& stream, Seen& seen)
      : network(stream, MAX_FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::SERVER),
        rpc(capnp::makeRpcServer(network, realm::Manager::Client(kj::heap<PlayedManager>(seen)))) {}
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
};

int lowestFreeFd() {
  int fd;
  KJ_SYSCALL(fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
  close(fd);
  return fd;
}

// A client from its first byte to its end.
void converse(kj::ArrayPtr<const kj::byte> input, kj::ArrayPtr<const kj::byte> bytes) {
  kj::EventLoop loop;
  kj::WaitScope scope(loop);
  Seen seen;
  auto inside = fuzz::newFdPipe();
  auto outside = fuzz::newFdPipe();
  auto troupe = kj::heap<Troupe>(*inside.ends[1], seen);
  bool isOver = false;
  auto served = serveRealms(kj::mv(outside.ends[0]), kj::mv(inside.ends[0]))
                    .catch_([](kj::Exception&&) {})
                    .then([&isOver] { isOver = true; })
                    .eagerlyEvaluate(nullptr);
  auto& client = outside.ends[1];
  kj::byte heard[4096];
  kj::Function<kj::Promise<void>()> hear = [&]() -> kj::Promise<void> {
    return client->tryRead(heard, 1, sizeof(heard)).then([&](size_t n) -> kj::Promise<void> {
      if (n == 0) return kj::READY_NOW;
      return hear();
    });
  };
  kj::Promise<void> hearing = nullptr;
  if (listens(input)) hearing = hear().catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
  const int sent[FDS_SENT] = {nullFd(), nullFd()};
  auto said = client->writeWithFds(bytes, nullptr, kj::arrayPtr(sent, FDS_SENT))
                  .catch_([](kj::Exception&&) {})
                  .eagerlyEvaluate(nullptr);
  scope.poll();
  hearing = nullptr;
  said = nullptr;
  client = nullptr;
  scope.poll();
  if (!isOver) finding("a client that is gone is served on");
  served = nullptr;
  scope.poll();
  if (seen.objects > 1) finding("what a client held is kept when it is gone");
  if (seen.open > 0) finding("a client that is gone still calls");
}

void run(kj::ArrayPtr<const kj::byte> input) {
  auto bytes = conversation(input, fillCall);
  if (bytes.size() == 0) return;
  nullFd();
  int fd = lowestFreeFd();
  uint64_t before = fuzz::allocatedBytes();
  converse(input, bytes);
  if (fuzz::allocatedBytes() - before > MOST_BYTES) finding("heap without bound for one client");
  if (lowestFreeFd() != fd) finding("a client's fd is kept when it is gone");
}

}  // namespace
}  // namespace troupe::front

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::sandbox::fuzzing::Quiet quiet;
  troupe::front::run(kj::arrayPtr(data, size));
  return 0;
}
