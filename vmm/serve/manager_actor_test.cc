// What a client holds goes with its connection, whatever it made of it.
#include "vmm/serve/manager_actor.h"

#include <capnp/rpc-twoparty.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

namespace troupe::realm {
namespace {

struct Bench {
  static Stage::Choices choices() {
    Stage::Choices choices;
    choices.jail = sandbox::Jail::OFF;
    choices.programs = "bin"_kj;
    return choices;
  }

  // Until nothing happens any more.
  void settle() {
    for (int i = 0; i < 100; i++)
      io.waitScope.poll();
  }

  void pass(kj::Duration time) {
    settle();
    timer.advanceTo(timer.now() + time);
    settle();
  }

  kj::TimerImpl timer{kj::origin<kj::TimePoint>() +
                      1 * kj::HOURS};  // of sessions; outlives the loop
  kj::AsyncIoContext io = kj::setupAsyncIo();
  Stage stage{io, choices()};
  Environments realms{io, stage};
  RealmTerms terms;
};

using Network = capnp::TwoPartyVatNetwork;
using Rpc = capnp::RpcSystem<capnp::rpc::twoparty::VatId>;

// One client's, both of its ends, and a realm that it made.
class Connection {
 public:
  explicit Connection(Bench& bench)
      : bench(bench),
        pipe(bench.io.provider->newCapabilityPipe()),
        serverNetwork(*pipe.ends[0], 4, capnp::rpc::twoparty::Side::SERVER),
        server(capnp::makeRpcServer(serverNetwork,
                                    kj::heap<ManagerActor>(bench.realms, bench.terms,
                                                           kj::refcounted<Session>(bench.timer)))),
        clientNetwork(*pipe.ends[1], 4, capnp::rpc::twoparty::Side::CLIENT),
        client(capnp::makeRpcClient(clientNetwork)) {
    capnp::MallocMessageBuilder message(8);
    auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
    vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
    auto manager = client.bootstrap(vatId).castAs<Manager>();
    auto created = manager.createRequest().send().wait(bench.io.waitScope);
    realmId = created.getId();
    made = created.getRealm();
  }

  ~Connection() noexcept(false) {
    made = nullptr;
    pipe.ends[1]->shutdownWrite();
    serverNetwork.onDisconnect().wait(bench.io.waitScope);
    bench.settle();
  }
  KJ_DISALLOW_COPY(Connection);

  uint32_t id() const { return realmId; }
  Realm::Client realm() { return KJ_ASSERT_NONNULL(made); }
  HostVsockEndpoint::Client endpoint() {
    return realm().getHostVsockEndpointRequest().send().wait(bench.io.waitScope).getEndpoint();
  }

 private:
  Bench& bench;
  kj::CapabilityPipe pipe;
  Network serverNetwork;
  Rpc server;
  Network clientNetwork;
  Rpc client;
  uint32_t realmId = 0;
  kj::Maybe<Realm::Client> made;
};

kj::Promise<VsockStatus> listen(HostVsockEndpoint::Client endpoint, uint32_t port,
                                HostVsockAcceptor::Client acceptor) {
  auto request = endpoint.listenRequest();
  request.setPort(port);
  request.setAcceptor(kj::mv(acceptor));
  return request.send().then([](auto&& answer) { return answer.getStatus(); });
}

class Acceptor final: public HostVsockAcceptor::Server {};

// The realm would hold what holds the realm.
TEST(Connection, CannotListenWithWhatItWasGiven) {
  Bench bench;
  uint32_t id = 0;
  {
    Connection connection(bench);
    id = connection.id();
    auto realm = connection.realm();
    auto endpoint = connection.endpoint();
    auto isRefused = [&](HostVsockAcceptor::Client acceptor) {
      return kj::runCatchingExceptions([&]() {
               listen(endpoint, 52, kj::mv(acceptor)).wait(bench.io.waitScope);
             }) != nullptr;
    };
    EXPECT_TRUE(isRefused(endpoint.castAs<HostVsockAcceptor>()));
    EXPECT_TRUE(isRefused(realm.castAs<HostVsockAcceptor>()));
    EXPECT_TRUE(isRefused(HostVsockAcceptor::Client(
        bench.io.provider->getTimer().afterDelay(0 * kj::SECONDS).then([endpoint]() mutable {
          return endpoint.castAs<HostVsockAcceptor>();
        }))));
    EXPECT_FALSE(isRefused(kj::heap<Acceptor>()));
  }
  EXPECT_TRUE(bench.realms.find(id) == nullptr);
}

// One whose maker does not want the answer any more.
TEST(Connection, WaitsForNoPromiseOfACallThatIsOver) {
  Bench bench;
  Connection connection(bench);
  auto endpoint = connection.endpoint();
  auto acceptor = kj::newPromiseAndFulfiller<HostVsockAcceptor::Client>();
  auto socket = kj::newPromiseAndFulfiller<Handle::Client>();
  auto directory = kj::newPromiseAndFulfiller<Handle::Client>();
  {
    auto listening = listen(endpoint, 52, kj::mv(acceptor.promise));
    auto connect = endpoint.connectRequest();
    connect.setSocket(kj::mv(socket.promise));
    auto connecting = connect.send();
    auto launch = connection.realm().launchInstanceRequest();
    launch.initLaunchInfo().initFlatNamespace().initDirectories(1).set(0,
                                                                       kj::mv(directory.promise));
    auto launching = launch.send();
    bench.settle();
    EXPECT_TRUE(acceptor.fulfiller->isWaiting());
    EXPECT_TRUE(socket.fulfiller->isWaiting());
    EXPECT_TRUE(directory.fulfiller->isWaiting());
  }
  bench.settle();
  EXPECT_FALSE(acceptor.fulfiller->isWaiting());
  EXPECT_FALSE(socket.fulfiller->isWaiting());
  EXPECT_FALSE(directory.fulfiller->isWaiting());
}

// A call with its own answer as what it waits for. RPC keeps what leads to an answer for as long as
// that is awaited.
class Looped {
 public:
  Looped(capnp::Capability::Client of, uint64_t interface, uint16_t method,
         kj::FunctionParam<void(capnp::AnyPointer::Builder, capnp::Capability::Client)> give) {
    auto itself = kj::newPromiseAndFulfiller<capnp::Capability::Client>();
    auto request = of.typelessRequest(interface, method, nullptr);
    give(request, kj::mv(itself.promise));
    auto sent = request.send();
    capnp::AnyPointer::Pipeline answer = kj::mv(sent);
    itself.fulfiller->fulfill(capnp::Capability::Client(answer.getPointerField(0).asCap()));
    answered = kj::mv(sent).ignoreResult().eagerlyEvaluate(nullptr);
  }
  kj::Promise<void> answered = nullptr;
};

Looped launchOfItself(Realm::Client realm) {
  return Looped(realm, capnp::typeId<Realm>(), 0, [](auto&& params, auto&& itself) {
    auto info = params.template initAs<Realm::LaunchInstanceParams>().initLaunchInfo();
    info.initFlatNamespace().initDirectories(1).set(0, itself.template castAs<Handle>());
  });
}

Looped connectOfItself(HostVsockEndpoint::Client endpoint) {
  return Looped(endpoint, capnp::typeId<HostVsockEndpoint>(), 1, [](auto&& params, auto&& itself) {
    params.template initAs<HostVsockEndpoint::ConnectParams>().setSocket(
        itself.template castAs<Handle>());
  });
}

Looped listenOfItself(HostVsockEndpoint::Client endpoint) {
  return Looped(endpoint, capnp::typeId<HostVsockEndpoint>(), 0, [](auto&& params, auto&& itself) {
    params.template initAs<HostVsockEndpoint::ListenParams>().setAcceptor(
        itself.template castAs<HostVsockAcceptor>());
  });
}

// One of each kind.
struct LoopedCalls {
  explicit LoopedCalls(Connection& connection)
      : launching(launchOfItself(connection.realm())),
        connecting(connectOfItself(connection.endpoint())),
        listening(listenOfItself(connection.endpoint())) {}

  Looped launching, connecting, listening;
  Looped* all[3] = {&launching, &connecting, &listening};
};

TEST(Connection, LeavesNoCallThatWaitsForItsOwnAnswer) {
  for (bool isDropped : {false, true}) {
    Bench bench;
    uint32_t id = 0;
    {
      Connection connection(bench);
      id = connection.id();
      LoopedCalls calls(connection);
      bench.settle();
      if (isDropped) {
        for (auto call : calls.all)
          call->answered = nullptr;
        bench.settle();
      }
    }
    bench.pass(Session::PATIENCE - 1 * kj::SECONDS);
    bench.pass(2 * kj::SECONDS);
    EXPECT_TRUE(bench.realms.find(id) == nullptr) << isDropped;
  }
}

TEST(Connection, EndsItsCallsThatWaitForTheirOwnAnswer) {
  Bench bench;
  Connection connection(bench);
  LoopedCalls calls(connection);
  bench.pass(Session::PATIENCE - 1 * kj::SECONDS);
  for (auto call : calls.all)
    EXPECT_FALSE(call->answered.poll(bench.io.waitScope));
  bench.pass(1 * kj::SECONDS);
  for (auto call : calls.all)
    EXPECT_ANY_THROW(call->answered.wait(bench.io.waitScope));
}

// So do the other calls that wait for what was promised; who keeps it in time is answered.
TEST(Connection, IsToldWhenItsPromisesComeTooLate) {
  Bench bench;
  Connection connection(bench);
  auto endpoint = connection.endpoint();
  auto acceptor = kj::newPromiseAndFulfiller<HostVsockAcceptor::Client>();
  auto kept = kj::newPromiseAndFulfiller<HostVsockAcceptor::Client>();
  auto socket = kj::newPromiseAndFulfiller<Handle::Client>();
  auto late = listen(endpoint, 52, kj::mv(acceptor.promise));
  auto inTime = listen(endpoint, 53, kj::mv(kept.promise));
  auto request = endpoint.connectRequest();
  request.setSocket(kj::mv(socket.promise));
  auto connecting = request.send().ignoreResult();
  bench.pass(Session::PATIENCE - 1 * kj::SECONDS);
  EXPECT_FALSE(late.poll(bench.io.waitScope));
  EXPECT_FALSE(connecting.poll(bench.io.waitScope));
  kept.fulfiller->fulfill(kj::heap<Acceptor>());
  bench.pass(1 * kj::SECONDS);
  EXPECT_EQ(inTime.wait(bench.io.waitScope), VsockStatus::OK);
  EXPECT_ANY_THROW(late.wait(bench.io.waitScope));
  EXPECT_ANY_THROW(connecting.wait(bench.io.waitScope));
}

}  // namespace
}  // namespace troupe::realm
