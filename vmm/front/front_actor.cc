#include "vmm/front/front_actor.h"

#include <capnp/rpc-twoparty.h>
#include <kj/debug.h>
#include <limits.h>

#include "tests/fuzz/planted.h"
#include "vmm/front/metrics_session.h"
#include "vmm/channels/peer_stream.h"

namespace troupe::front {

namespace {

// No call of Vm has more than a short parameter, but the limit is for both directions, and what is
// told of the jails of a VM with every disk has 160 KiB.
constexpr size_t MESSAGE_LIMIT_WORDS = 32 * 1024;
constexpr size_t FLOW_LIMIT_WORDS = 4 * 1024;  // calls under way
constexpr uint32_t OPEN_CALLS = 64;            // of a client
constexpr size_t LONGEST_DISK_ID = 256;
constexpr size_t LONGEST_DEVICE_NAME = 32;
constexpr size_t LONGEST_PROFILE = 16 << 10;  // a call with it is within FLOW_LIMIT_WORDS
constexpr uint32_t CALLS_PER_CONNECTION = 10000;
constexpr uint32_t READERS_PER_CONNECTION = 16;  // of events: each is an object of `troupe`'s
constexpr kj::Duration LONGEST_CONNECTION = 1 * kj::HOURS;  // idle clients give their place back

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = MESSAGE_LIMIT_WORDS;
  options.nestingLimit = 8;
  return options;
}

// What one client talks to: passes its calls on, typed and counted, and ends the connection of a
// client that goes too far.
class BoundedVm final: public Vm::Server {
 public:
  BoundedVm(Vm::Client vm, kj::Own<kj::PromiseFulfiller<void>> excess)
      : vm(kj::mv(vm)), excess(kj::mv(excess)) {}

  kj::Promise<void> status(StatusContext context) override {
    count();
    return vm.statusRequest().send().then([context](auto&& response) mutable {
      context.getResults().setStatus(response.getStatus());
    });
  }

  kj::Promise<void> stop(StopContext context) override {
    count();
    context.allowCancellation();  // it is answered by the connection's end alone
    auto params = context.getParams();
    auto request = vm.stopRequest();
    request.setForce(params.getForce());
    request.setTimeoutMs(params.getTimeoutMs());
    return request.send().ignoreResult();
  }

  kj::Promise<void> pause(PauseContext) override {
    count();
    return vm.pauseRequest().send().ignoreResult();
  }

  kj::Promise<void> resume(ResumeContext) override {
    count();
    return vm.resumeRequest().send().ignoreResult();
  }

  kj::Promise<void> replaceDevice(ReplaceDeviceContext context) override {
    count();
    auto params = context.getParams();
    bool isShort = params.getDevice().size() <= LONGEST_DISK_ID;
    KJ_REQUIRE(isShort || fuzz::isPlanted(fuzz::Bug::LONG_NAME), "no device has such a name");
    KJ_REQUIRE(params.getBinary().size() <= PATH_MAX && params.getProfilePath().size() <= PATH_MAX,
               "a path is too long");
    KJ_REQUIRE(params.getProfile().size() <= LONGEST_PROFILE, "a profile is too long");
    auto request = vm.replaceDeviceRequest();
    request.setDevice(params.getDevice());
    request.setBinary(params.getBinary());
    request.setProfilePath(params.getProfilePath());
    request.setProfile(params.getProfile());
    request.setMayBeLooser(params.getMayBeLooser());
    return request.send().ignoreResult();
  }

  kj::Promise<void> graph(GraphContext context) override {
    count();
    return vm.graphRequest().send().then(
        [context](auto&& response) mutable { context.getResults().setGraph(response.getGraph()); });
  }

  kj::Promise<void> reset(ResetContext) override {
    count();
    return vm.resetRequest().send().ignoreResult();
  }

  kj::Promise<void> powerButton(PowerButtonContext) override {
    count();
    return vm.powerButtonRequest().send().ignoreResult();
  }

  kj::Promise<void> load(LoadContext context) override {
    count();
    return vm.loadRequest().send().then(
        [context](auto&& response) mutable { context.getResults().setLoad(response.getLoad()); });
  }

  kj::Promise<void> events(EventsContext context) override;

  kj::Promise<void> counters(CountersContext context) override {
    count();
    return vm.countersRequest().send().then([context](auto&& response) mutable {
      context.getResults().setCounters(response.getCounters());
    });
  }

  kj::Promise<void> inspectJails(InspectJailsContext context) override {
    count();
    return vm.inspectJailsRequest().send().then(
        [context](auto&& response) mutable { context.getResults().setJails(response.getJails()); });
  }

  kj::Promise<void> resizeDisk(ResizeDiskContext context) override {
    count();
    auto params = context.getParams();
    KJ_REQUIRE(params.getDisk().size() <= LONGEST_DISK_ID, "no disk has such an id");
    auto request = vm.resizeDiskRequest();
    request.setDisk(params.getDisk());
    request.setBytes(params.getBytes());
    return request.send().then(
        [context](auto&& response) mutable { context.getResults().setBytes(response.getBytes()); });
  }

  kj::Promise<void> net(NetContext context) override {
    count();
    auto params = context.getParams();
    KJ_REQUIRE(params.getDevice().size() <= LONGEST_DEVICE_NAME, "no device has such a name");
    auto request = vm.netRequest();
    request.setDevice(params.getDevice());
    auto wish = request.initWish();
    if (params.getWish().isLinkUp()) wish.setLinkUp(params.getWish().getLinkUp());
    if (params.getWish().isAnnounce()) wish.setAnnounce();
    return request.send().then([context](auto&& response) mutable {
      context.getResults().setDevice(response.getDevice());
    });
  }

  kj::Promise<void> balloon(BalloonContext context) override {
    count();
    auto request = vm.balloonRequest();
    auto asked = context.getParams().getRequest();
    auto passed = request.initRequest();
    if (asked.isGuestBytes()) passed.setGuestBytes(asked.getGuestBytes());
    if (asked.isReclaim()) passed.setReclaim();
    return request.send().then([context](auto&& response) mutable {
      context.getResults().setStatus(response.getStatus());
    });
  }

  // A reader of events more or less.
  void addReader() {
    KJ_REQUIRE(readers < READERS_PER_CONNECTION, "too many readers of events at once");
    readers++;
  }
  void dropReader() { readers--; }

  // One more call, by way of this or of what it gave out.
  void count() {
    if (++calls <= CALLS_PER_CONNECTION) return;
    excess->fulfill();
    kj::throwFatalException(kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                                          kj::str("too many calls on one connection")));
  }

 private:
  Vm::Client vm;
  kj::Own<kj::PromiseFulfiller<void>> excess;
  uint32_t calls = 0;
  uint32_t readers = 0;
};

// What one client reads events by.
class BoundedReader final: public EventReader::Server {
 public:
  // Counted before it was asked for.
  BoundedReader(BoundedVm& vm, Vm::Client self, EventReader::Client reader)
      : vm(vm), self(kj::mv(self)), reader(kj::mv(reader)) {}
  ~BoundedReader() noexcept(false) { vm.dropReader(); }

  kj::Promise<void> next(NextContext context) override {
    vm.count();
    context.allowCancellation();
    auto request = reader.nextRequest();
    request.setWait(context.getParams().getWait());
    return request.send().then([context](auto&& response) mutable {
      auto results = context.getResults();
      results.setEvents(response.getEvents());
      results.setLost(response.getLost());
      results.setIsEnd(response.getIsEnd());
    });
  }

 private:
  BoundedVm& vm;
  Vm::Client self;  // keeps it
  EventReader::Client reader;
};

kj::Promise<void> BoundedVm::events(EventsContext context) {
  count();
  addReader();
  auto request = vm.eventsRequest();
  request.setAfter(context.getParams().getAfter());
  return request.send().then(
      [this, context](auto&& response) mutable {
        context.getResults().setReader(
            kj::heap<BoundedReader>(*this, thisCap(), response.getReader()));
      },
      [this](kj::Exception&& failure) {
        dropReader();
        kj::throwFatalException(kj::mv(failure));
      });
}

// One client's connection and all that serves it.
struct Session {
  kj::Own<kj::AsyncIoStream> stream;
  PeerStream messages;
  capnp::TwoPartyVatNetwork network;
  kj::Maybe<capnp::RpcSystem<capnp::rpc::twoparty::VatId>> rpc;

  explicit Session(kj::Own<kj::AsyncIoStream> streamParam)
      : stream(kj::mv(streamParam)),
        messages(*stream, OPEN_CALLS),
        network(messages, capnp::rpc::twoparty::Side::SERVER, boundedReading()) {
    messages.watch(network);
  }
};

}  // namespace

FrontActor::FrontActor(kj::AsyncIoContext& io, ConnectionSlots& slots, kj::Function<void()> narrow)
    : io(io), slots(slots), narrow(kj::mv(narrow)) {}

kj::Promise<void> FrontActor::ready(ReadyContext) {
  narrow();
  return kj::READY_NOW;
}

kj::Promise<void> FrontActor::serve(ServeContext context) {
  auto params = context.getParams();
  auto connection = params.getConnection();
  auto vm = params.getVm();
  context.releaseParams();
  return take(kj::mv(connection), [this, vm = kj::mv(vm)](auto stream) mutable {
    return serveClient(kj::mv(stream), kj::mv(vm), io.provider->getTimer());
  });
}

kj::Promise<void> FrontActor::serveMetrics(ServeMetricsContext context) {
  auto params = context.getParams();
  auto connection = params.getConnection();
  auto vm = params.getVm();
  context.releaseParams();
  return take(kj::mv(connection), [this, vm = kj::mv(vm)](auto stream) mutable {
    return front::serveMetrics(kj::mv(stream), kj::mv(vm), io.provider->getTimer());
  });
}

// Puts the connection where the profile has a place for it, until `serve` is done with it.
kj::Promise<void> FrontActor::take(Handle::Client connection, Serve serve) {
  auto handle = connection.getFd();
  return handle.then([this, connection = kj::mv(connection),
                      serve = kj::mv(serve)](kj::Maybe<int> fd) mutable -> kj::Promise<void> {
    auto placed = slots.place(KJ_REQUIRE_NONNULL(fd, "a connection without its fd"));
    connection = nullptr;  // and with it the fd as it came
    uint32_t slot = placed.slot;
    auto stream = io.lowLevelProvider->wrapSocketFd(
        kj::mv(placed.fd), kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC |
                               kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK);
    return serve(kj::mv(stream)).attach(kj::defer([this, slot]() { slots.release(slot); }));
  });
}

kj::Promise<void> serveClient(kj::Own<kj::AsyncIoStream> stream, Vm::Client vm, kj::Timer& timer) {
  auto session = kj::heap<Session>(kj::mv(stream));
  auto excess = kj::newPromiseAndFulfiller<void>();
  auto& rpc = session->rpc.emplace(capnp::makeRpcServer(
      session->network, kj::heap<BoundedVm>(kj::mv(vm), kj::mv(excess.fulfiller))));
  rpc.setFlowLimit(FLOW_LIMIT_WORDS);
  auto left = session->network.onDisconnect();
  return left.exclusiveJoin(kj::mv(excess.promise))
      .exclusiveJoin(timer.afterDelay(LONGEST_CONNECTION))
      .attach(kj::mv(session));
}

}  // namespace troupe::front
