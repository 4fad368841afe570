// A peer that says anything at all, and reads nothing.
#include "vmm/channels/peer_stream.h"

#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <errno.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>

#include "protos/realm.capnp.h"

namespace troupe {
namespace {

using capnp::rpc::Message;
using Fill = kj::Function<void(Message::Builder)>;

constexpr uint32_t MOST_CALLS = 64;
constexpr size_t LONG_ANSWER = 256 << 10;
// Of messages that nobody reads: what is under way when the limit is met comes on top.
constexpr size_t ROOM = 2 * PeerStream::MOST_UNREAD_MESSAGES + MOST_CALLS;

class Realms final: public realm::Manager::Server {
 public:
  explicit Realms(size_t answerBytes) : label(kj::heapString(answerBytes)) {
    memset(label.begin(), 'x', label.size());
  }
  kj::Promise<void> list(ListContext context) override {
    context.getResults().initEnvironments(1)[0].setLabel(label);
    return kj::READY_NOW;
  }

 private:
  kj::String label;
};

// Answers nobody.
class Sleeper final: public realm::Manager::Server {
 public:
  kj::Promise<void> list(ListContext) override { return kj::NEVER_DONE; }
};

// Gives back what it was given, so that who calls it gets its own.
class Mirror final: public realm::GuestVsockEndpoint::Server {
 public:
  kj::Promise<void> setContextId(SetContextIdContext context) override {
    auto given = context.getParams().getConnector();
    context.getResults().setAcceptor(given.castAs<realm::GuestVsockAcceptor>());
    return kj::READY_NOW;
  }
};

// One who serves, and the raw end of a connection to it.
class Bench {
 public:
  explicit Bench(capnp::Capability::Client served) {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    peer = kj::AutoCloseFd(fds[0]);
    stream = io.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(fds[1]));
    messages = kj::heap<PeerStream>(*stream, MOST_CALLS);
    network = kj::heap<capnp::TwoPartyVatNetwork>(*messages, 0, capnp::rpc::twoparty::Side::SERVER);
    messages->watch(*network);
    rpc = capnp::makeRpcServer(*network, kj::mv(served));
    ending = network->onDisconnect()
                 .then([this]() { hasEnded = true; })
                 .eagerlyEvaluate([this](kj::Exception&&) { hasEnded = true; });
  }

  // What the peer says next, as soon as there is room.
  void say(Fill fill) {
    capnp::MallocMessageBuilder message;
    fill(message.initRoot<Message>());
    auto bytes = capnp::messageToFlatArray(message);
    unsaid.insert(unsaid.end(), bytes.asBytes().begin(), bytes.asBytes().end());
  }

  void bootstrap(uint32_t question) {
    say([&](Message::Builder message) { message.initBootstrap().setQuestionId(question); });
  }

  template <typename Params, typename Interface>
  void call(uint32_t question, uint16_t method, kj::uint capabilities = 0) {
    say([&](Message::Builder message) {
      auto call = message.initCall();
      call.setQuestionId(question);
      call.initTarget().initPromisedAnswer().setQuestionId(0);
      call.setInterfaceId(capnp::typeId<Interface>());
      call.setMethodId(method);
      auto payload = call.initParams();
      auto list = payload.initCapTable(capabilities);
      for (kj::uint i = 0; i < capabilities; i++)
        list[i].setSenderHosted(i);
      capnp::BuilderCapabilityTable table;
      auto params = table.imbue(payload.getContent()).template initAs<Params>();
      setCapability(params, capabilities);
    });
  }

  void list(uint32_t question) { call<realm::Manager::ListParams, realm::Manager>(question, 1); }

  void finish(uint32_t question) {
    say([&](Message::Builder message) { message.initFinish().setQuestionId(question); });
  }

  // Until neither side does anything more: the peer has said all it can, and has heard nothing.
  void settle() {
    for (bool goesOn = true; goesOn;) {
      goesOn = sendSome();
      io.waitScope.poll();
    }
  }

  // The peer reads all there is, and goes on to say what it has not said. How many messages it
  // heard.
  size_t hearAll() {
    size_t heard = 0;
    for (bool goesOn = true; goesOn;) {
      goesOn = sendSome();
      io.waitScope.poll();
      kj::byte buffer[64 << 10];
      ssize_t bytes = read(peer, buffer, sizeof(buffer));
      if (bytes > 0) {
        unheard.insert(unheard.end(), buffer, buffer + bytes);
        goesOn = true;
      }
      heard += takeMessages();
    }
    return heard;
  }

  void leave() {
    peer = nullptr;
    unsaid.clear();
    for (int i = 0; i < 100 && !hasEnded; i++)
      io.waitScope.poll();
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::AutoCloseFd peer;
  std::deque<kj::byte> unsaid;
  std::deque<kj::byte> unheard;
  bool hasEnded = false;
  kj::Own<kj::AsyncIoStream> stream;
  kj::Own<PeerStream> messages;
  kj::Own<capnp::TwoPartyVatNetwork> network;
  kj::Maybe<capnp::RpcSystem<capnp::rpc::twoparty::VatId>> rpc;
  kj::Promise<void> ending = nullptr;

 private:
  static void setCapability(realm::Manager::ListParams::Builder, kj::uint) {}
  static void setCapability(realm::GuestVsockEndpoint::SetContextIdParams::Builder params,
                            kj::uint capabilities) {
    // The first pointer that says "capability" leads to the first of the table.
    if (capabilities > 0) {
      params.setConnector(realm::HostVsockConnector::Client(KJ_EXCEPTION(FAILED, "stands for it")));
    }
  }

  bool sendSome() {
    kj::byte buffer[16 << 10];
    size_t size = kj::min(unsaid.size(), sizeof(buffer));
    if (size == 0 || peer == nullptr) return false;
    std::copy(unsaid.begin(), unsaid.begin() + size, buffer);
    ssize_t sent = send(peer, buffer, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    unsaid.erase(unsaid.begin(), unsaid.begin() + sent);
    return true;
  }

  size_t takeMessages() {
    auto words = kj::heapArray<capnp::word>(unheard.size() / sizeof(capnp::word));
    std::copy(unheard.begin(), unheard.begin() + words.asBytes().size(), words.asBytes().begin());
    kj::ArrayPtr<const capnp::word> rest = words;
    size_t count = 0;
    while (rest.size() > 0) {
      size_t size = capnp::expectedSizeInWordsFromPrefix(rest);
      if (size > rest.size()) break;
      rest = rest.slice(size, rest.size());
      count++;
    }
    unheard.erase(unheard.begin(),
                  unheard.begin() + (words.size() - rest.size()) * sizeof(capnp::word));
    return count;
  }
};

TEST(PeerStream, APeerThatIsSlowToReadLongAnswersGetsAllOfThem) {
  Bench bench(kj::heap<Realms>(LONG_ANSWER));
  bench.bootstrap(0);
  for (uint32_t i = 1; i < MOST_CALLS; i++)
    bench.list(i);
  bench.settle();
  EXPECT_FALSE(bench.hasEnded);
  EXPECT_LT(bench.network->getCurrentQueueSize(), PeerStream::MOST_UNREAD_BYTES + 2 * LONG_ANSWER);
  EXPECT_EQ(bench.hearAll(), MOST_CALLS);
  EXPECT_FALSE(bench.hasEnded);
}

TEST(PeerStream, OfAnswersThatNobodyReadsFewAreKept) {
  Bench bench(kj::heap<Realms>(1));
  bench.bootstrap(0);
  constexpr uint32_t CALLS = 20000;
  for (uint32_t i = 1; i <= CALLS; i++) {
    bench.list(i);
    bench.finish(i);
  }
  bench.settle();
  EXPECT_FALSE(bench.hasEnded);
  EXPECT_FALSE(bench.unsaid.empty());  // it is not heard
  EXPECT_LE(bench.network->getCurrentQueueCount(), ROOM);
  EXPECT_EQ(bench.hearAll(), 1 + CALLS);  // until it reads
  EXPECT_TRUE(bench.unsaid.empty());
  EXPECT_FALSE(bench.hasEnded);
}

TEST(PeerStream, PromisesThatAreKeptWithoutNeedCostLittle) {
  Bench bench(kj::heap<Realms>(1));
  bench.bootstrap(0);
  constexpr uint32_t TIMES = 20000;
  for (uint32_t i = 0; i < TIMES; i++) {
    bench.say([i](Message::Builder message) {
      auto resolve = message.initResolve();
      resolve.setPromiseId(TIMES + i);
      resolve.initCap().setSenderHosted(i);  // it is told that nobody wants it
    });
  }
  bench.settle();
  EXPECT_FALSE(bench.unsaid.empty());
  EXPECT_LE(bench.network->getCurrentQueueCount(), ROOM);
  EXPECT_EQ(bench.hearAll(), 1 + TIMES);
  EXPECT_FALSE(bench.hasEnded);
}

TEST(PeerStream, EmbargoesThatAreLiftedForeverCostLittle) {
  Bench bench(kj::heap<Mirror>());
  bench.bootstrap(0);
  bench.call<realm::GuestVsockEndpoint::SetContextIdParams, realm::GuestVsockEndpoint>(1, 0, 1);
  constexpr uint32_t TIMES = 20000;
  for (uint32_t i = 0; i < TIMES; i++) {
    bench.say([i](Message::Builder message) {
      auto disembargo = message.initDisembargo();
      auto promised = disembargo.initTarget().initPromisedAnswer();
      promised.setQuestionId(1);
      promised.initTransform(1)[0].setGetPointerField(0);
      disembargo.getContext().setSenderLoopback(i);
    });
  }
  bench.settle();
  EXPECT_FALSE(bench.unsaid.empty());
  EXPECT_LE(bench.network->getCurrentQueueCount(), ROOM);
  EXPECT_GT(bench.hearAll(), TIMES);
  EXPECT_FALSE(bench.hasEnded);
}

TEST(PeerStream, WhoIsNotHeardAndLeavesIsGone) {
  Bench bench(kj::heap<Realms>(LONG_ANSWER));
  bench.bootstrap(0);
  for (uint32_t i = 1; i < MOST_CALLS; i++)
    bench.list(i);
  bench.settle();
  EXPECT_FALSE(bench.hasEnded);
  bench.leave();
  EXPECT_TRUE(bench.hasEnded);
}

TEST(PeerStream, WhoFinishesNothingIsCutOff) {
  Bench bench(kj::heap<Realms>(1));
  bench.bootstrap(0);
  for (uint32_t i = 1; i < MOST_CALLS; i++)
    bench.list(i);
  bench.hearAll();
  EXPECT_FALSE(bench.hasEnded);
  bench.list(MOST_CALLS);
  bench.hearAll();
  EXPECT_TRUE(bench.hasEnded);
}

TEST(PeerStream, WhoEndsACallAgainAndAgainIsCutOff) {
  Bench bench(kj::heap<Sleeper>());
  bench.bootstrap(0);
  bench.list(1);
  bench.finish(1);
  bench.hearAll();
  EXPECT_FALSE(bench.hasEnded);
  bench.finish(1);  // it is under way still
  bench.hearAll();
  EXPECT_TRUE(bench.hasEnded);
}

TEST(PeerStream, WhoOnlyBootstrapsIsCutOffTheSame) {
  Bench bench(kj::heap<Realms>(1));
  for (uint32_t i = 0; i <= MOST_CALLS; i++)
    bench.bootstrap(i);
  bench.hearAll();
  EXPECT_TRUE(bench.hasEnded);
}

TEST(PeerStream, MoreCapabilitiesThanACallHasEndTheConnection) {
  for (kj::uint count : {64u, 65u}) {
    Bench bench(kj::heap<Mirror>());
    bench.bootstrap(0);
    bench.call<realm::GuestVsockEndpoint::SetContextIdParams, realm::GuestVsockEndpoint>(1, 0,
                                                                                         count);
    bench.hearAll();
    EXPECT_EQ(bench.hasEnded, count == 65) << count;
  }
}

}  // namespace
}  // namespace troupe
