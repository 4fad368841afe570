#include "vmm/serve/vsock_exchange.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "protos/fd_handle.h"

namespace troupe::realm {
namespace {

struct Pair {
  kj::AutoCloseFd ours, theirs;
};

Pair makePair() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

// Whether what goes in at one end comes out at the other.
bool areConnected(int one, int other) {
  char got[5] = {};
  return write(one, "hello", 5) == 5 && read(other, got, 5) == 5 && memcmp(got, "hello", 5) == 0;
}

// The process of a guest's socket device.
struct FakeDevice {
  OfferAnswer answer = OfferAnswer::ACCEPTED;
  uint64_t peerCid = 0;
  uint32_t peerPort = 0, guestPort = 0;
  kj::AutoCloseFd socket;
};

class FakeAcceptor final: public Acceptor::Server {
 public:
  explicit FakeAcceptor(FakeDevice& device) : device(device) {}

  kj::Promise<void> offer(OfferContext context) override {
    auto stream = context.getParams().getStream();
    device.peerCid = stream.getPeerCid();
    device.peerPort = stream.getPeerPort();
    device.guestPort = stream.getGuestPort();
    auto handle = context.getParams().getSocket();
    auto lent = handle.getFd();
    return lent.then([this, context, handle = kj::mv(handle)](kj::Maybe<int> fd) mutable {
      device.socket = kj::AutoCloseFd(dup(KJ_ASSERT_NONNULL(fd)));
      context.getResults().setAnswer(device.answer);
    });
  }

 private:
  FakeDevice& device;
};

// A program of the host's that listens.
class FakeListener final: public HostVsockAcceptor::Server {
 public:
  FakeListener(kj::AutoCloseFd answer, VsockStatus status = VsockStatus::OK)
      : answer(kj::mv(answer)), status(status) {}

  kj::Promise<void> accept(AcceptContext context) override {
    context.getResults().setStatus(status);
    context.getResults().setSocket(handleToCopy(answer));
    return kj::READY_NOW;
  }

 private:
  kj::AutoCloseFd answer;
  VsockStatus status;
};

struct Bench {
  kj::Own<VsockNeighbours> join(uint32_t cid, FakeDevice& device) {
    auto guest = exchange->join(cid);
    guest->serves(kj::heap<FakeAcceptor>(device));
    return guest;
  }

  // What the device of `guest` is given for a stream of its guest's port 1024; null for nobody.
  kj::AutoCloseFd ask(VsockNeighbours& guest, uint64_t cid, uint32_t port) {
    auto request = guest.connector().connectRequest();
    request.setCid(cid);
    request.setPort(port);
    request.setGuestPort(1024);
    auto answer = request.send().wait(io.waitScope);
    if (!answer.hasSocket()) return nullptr;
    auto handle = answer.getSocket();
    return kj::AutoCloseFd(dup(KJ_ASSERT_NONNULL(handle.getFd().wait(io.waitScope))));
  }

  void tellEnd(VsockNeighbours& guest, uint64_t peerCid, uint32_t peerPort, uint32_t guestPort) {
    auto request = guest.connector().endedRequest();
    auto stream = request.initStreams(1)[0];
    stream.setPeerCid(peerCid);
    stream.setPeerPort(peerPort);
    stream.setGuestPort(guestPort);
    request.send().wait(io.waitScope);
  }

  VsockStatus connect(uint32_t cid, uint32_t port) {
    return exchange->connect(cid, port, makePair().theirs).wait(io.waitScope);
  }

  VsockStatus listen(uint32_t port, HostVsockAcceptor::Client acceptor,
                     kj::Own<VsockExchange::Listening>& listening) {
    return exchange->listen(port, kj::mv(acceptor), kj::addRef(*asker), listening);
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::Own<PatientAsker> asker = kj::refcounted<PatientAsker>(io.provider->getTimer(), 64);
  kj::Own<VsockExchange> exchange = kj::refcounted<VsockExchange>(io.provider->getTimer());
  FakeDevice device, other;
  kj::Own<VsockExchange::Listening> listening;
};

TEST(VsockExchange, AGuestReachesWhoeverListensOnTheHost) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  EXPECT_TRUE(bench.ask(*guest, 2, 52) == nullptr);
  auto pair = makePair();
  EXPECT_EQ(bench.listen(52, kj::heap<FakeListener>(kj::mv(pair.theirs)), bench.listening),
            VsockStatus::OK);
  auto socket = bench.ask(*guest, 2, 52);
  ASSERT_TRUE(socket != nullptr);
  EXPECT_TRUE(areConnected(socket, pair.ours));
  EXPECT_EQ(fcntl(socket, F_GETFL) & O_NONBLOCK, O_NONBLOCK);  // as devices want it
}

TEST(VsockExchange, APortHasOneListenerUntilThatEnds) {
  Bench bench;
  auto listener = [] { return kj::heap<FakeListener>(makePair().theirs); };
  EXPECT_EQ(bench.listen(52, listener(), bench.listening), VsockStatus::OK);
  kj::Own<VsockExchange::Listening> second;
  EXPECT_EQ(bench.listen(52, listener(), second), VsockStatus::ALREADY_BOUND);
  EXPECT_TRUE(second.get() == nullptr);
  bench.listening = nullptr;
  EXPECT_EQ(bench.listen(52, listener(), second), VsockStatus::OK);
}

TEST(VsockExchange, AListenerThatRefusesOrGivesNoStreamIsNobody) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  bench.listen(52, kj::heap<FakeListener>(makePair().theirs, VsockStatus::CONNECTION_REFUSED),
               bench.listening);
  EXPECT_TRUE(bench.ask(*guest, 2, 52) == nullptr);
  for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    bench.listening = nullptr;
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, type, 0, fds));
    kj::AutoCloseFd one(fds[0]), its(fds[1]);
    bench.listen(52, kj::heap<FakeListener>(kj::mv(its)), bench.listening);
    EXPECT_TRUE(bench.ask(*guest, 2, 52) == nullptr);
  }
  bench.listening = nullptr;
  kj::AutoCloseFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  bench.listen(52, kj::heap<FakeListener>(kj::mv(file)), bench.listening);
  EXPECT_TRUE(bench.ask(*guest, 2, 52) == nullptr);
}

TEST(VsockExchange, TheHostTakesTheLowestFreePortForAGuest) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.device.peerCid, 2);
  EXPECT_EQ(bench.device.peerPort, 49152);
  EXPECT_EQ(bench.device.guestPort, 22);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.device.peerPort, 49153);
  bench.tellEnd(*guest, 2, 49152, 22);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.device.peerPort, 49152);
}

TEST(VsockExchange, ARefusedStreamHasNoPort) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  bench.device.answer = OfferAnswer::REFUSED;
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::CONNECTION_REFUSED);
  bench.device.answer = OfferAnswer::EXISTS;
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::ALREADY_BOUND);
  bench.device.answer = OfferAnswer::ACCEPTED;
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.device.peerPort, 49152);
}

TEST(VsockExchange, ARefusedStreamHasNoPortWhenNobodyWaitsForItEither) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  bench.device.answer = OfferAnswer::REFUSED;
  { auto connecting = bench.exchange->connect(3, 22, makePair().theirs); }
  bench.io.waitScope.poll();
  bench.device.answer = OfferAnswer::ACCEPTED;
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.device.peerPort, VsockExchange::FIRST_EPHEMERAL);
}

TEST(VsockExchange, APortInUseIsNoListenersAndAListenersIsNotUsed) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  auto listener = [] { return kj::heap<FakeListener>(makePair().theirs); };
  EXPECT_EQ(bench.listen(49152, listener(), bench.listening), VsockStatus::ALREADY_BOUND);
  EXPECT_EQ(bench.listen(49153, listener(), bench.listening), VsockStatus::OK);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.device.peerPort, 49154);
}

TEST(VsockExchange, WithoutAFreePortThereAreNoResources) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  for (uint32_t port = 49152; port <= 65535; port++)
    ASSERT_EQ(bench.connect(3, 22), VsockStatus::OK) << port;
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::NO_RESOURCES);
  guest = nullptr;  // with the guest its streams end
  guest = bench.join(4, bench.device);
  EXPECT_EQ(bench.connect(4, 22), VsockStatus::OK);
}

TEST(VsockExchange, NeitherTheHostNorAnUnknownGuestIsReached) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  EXPECT_EQ(bench.connect(2, 22), VsockStatus::CONNECTION_REFUSED);
  EXPECT_EQ(bench.connect(4, 22), VsockStatus::CONNECTION_REFUSED);
  EXPECT_TRUE(bench.ask(*guest, 4, 22) == nullptr);
  EXPECT_TRUE(bench.ask(*guest, uint64_t(1) << 32 | 3, 22) == nullptr);
}

TEST(VsockExchange, OnlyAStreamIsConnected) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  kj::AutoCloseFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(bench.exchange->connect(3, 22, kj::mv(file)).wait(bench.io.waitScope),
            VsockStatus::CONNECTION_REFUSED);
  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM, 0));  // not connected
  EXPECT_EQ(bench.exchange->connect(3, 22, kj::AutoCloseFd(raw)).wait(bench.io.waitScope),
            VsockStatus::CONNECTION_REFUSED);
  EXPECT_EQ(bench.device.peerCid, 0);
}

TEST(VsockExchange, GuestsReachEachOtherUnderTheirOwnNames) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  auto neighbour = bench.join(4, bench.other);
  auto socket = bench.ask(*guest, 4, 22);
  ASSERT_TRUE(socket != nullptr);
  EXPECT_EQ(bench.other.peerCid, 3);
  EXPECT_EQ(bench.other.peerPort, 1024);
  EXPECT_EQ(bench.other.guestPort, 22);
  EXPECT_TRUE(areConnected(socket, bench.other.socket));
  bench.other.answer = OfferAnswer::REFUSED;
  EXPECT_TRUE(bench.ask(*guest, 4, 23) == nullptr);
}

TEST(VsockExchange, GuestsOfAnotherRealmAreNotReached) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  auto realm = kj::refcounted<VsockExchange>(bench.io.provider->getTimer());
  auto stranger = realm->join(4);
  stranger->serves(kj::heap<FakeAcceptor>(bench.other));
  EXPECT_TRUE(bench.ask(*guest, 4, 22) == nullptr);
}

TEST(VsockExchange, ADeviceEndsNoStreamOfAnother) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  auto neighbour = bench.join(4, bench.other);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  bench.tellEnd(*neighbour, 2, 49152, 22);
  bench.tellEnd(*guest, 2, 49152, 23);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.device.peerPort, 49153);
}

TEST(VsockExchange, ADeviceThatIsReplacedHasNoStreams) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  guest->serves(kj::heap<FakeAcceptor>(bench.other));
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  EXPECT_EQ(bench.other.peerPort, 49152);
}

// A device that keeps whatever it is given.
class GreedyAcceptor final: public Acceptor::Server {
 public:
  kj::Promise<void> offer(OfferContext context) override {
    kept.add(context.getParams().getSocket());
    context.getResults().setAnswer(OfferAnswer::ACCEPTED);
    return kj::READY_NOW;
  }

 private:
  kj::Vector<Handle::Client> kept;
};

TEST(VsockExchange, ADeviceThatKeepsWhatItIsGivenIsGivenNoMore) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  guest->serves(kj::heap<GreedyAcceptor>());
  for (uint32_t i = 0; i < VsockExchange::MOST_HELD; i++)
    ASSERT_EQ(bench.connect(3, 22), VsockStatus::OK) << i;
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::NO_RESOURCES);

  auto neighbour = bench.join(4, bench.other);
  kj::Vector<capnp::Response<Connector::ConnectResults>> kept;
  auto ask = [&]() {
    auto request = neighbour->connector().connectRequest();
    request.setCid(4);
    request.setPort(22);
    kept.add(request.send().wait(bench.io.waitScope));
    return kept.back().hasSocket();
  };
  for (uint32_t i = 0; i < VsockExchange::MOST_HELD; i++)
    ASSERT_TRUE(ask()) << i;
  EXPECT_FALSE(ask());
  kept.clear();
  EXPECT_TRUE(ask());
}

// One who never answers.
class SilentListener final: public HostVsockAcceptor::Server {
 public:
  explicit SilentListener(uint32_t& asked) : asked(asked) {}
  kj::Promise<void> accept(AcceptContext) override {
    ++asked;
    return kj::NEVER_DONE;
  }

 private:
  uint32_t& asked;
};

class SilentAcceptor final: public Acceptor::Server {
 public:
  explicit SilentAcceptor(uint32_t& asked) : asked(asked) {}
  kj::Promise<void> offer(OfferContext) override {
    ++asked;
    return kj::NEVER_DONE;
  }

 private:
  uint32_t& asked;
};

TEST(VsockExchange, WhoNeverAnswersIsAskedSoOftenAndNoMore) {
  kj::EventLoop loop;
  kj::WaitScope scope(loop);
  kj::TimerImpl timer(kj::origin<kj::TimePoint>() + 1 * kj::HOURS);
  auto exchange = kj::refcounted<VsockExchange>(timer);
  uint32_t asked = 0;
  kj::Own<VsockExchange::Listening> listening;
  {
    auto asker = kj::refcounted<PatientAsker>(timer, VsockExchange::MOST_WAITING);
    exchange->listen(52, kj::heap<SilentListener>(asked), kj::mv(asker), listening);
  }
  auto guest = exchange->join(3);
  guest->serves(kj::heap<SilentAcceptor>(asked));
  auto reachHost = [&]() -> kj::Promise<void> {
    auto request = guest->connector().connectRequest();
    request.setCid(2);
    request.setPort(52);
    return request.send().then([](auto&& answer) { EXPECT_FALSE(answer.hasSocket()); });
  };
  auto reachGuest = [&]() -> kj::Promise<void> {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    kj::AutoCloseFd ours(fds[0]);
    return exchange->connect(3, 22, kj::AutoCloseFd(fds[1]))
        .then([](VsockStatus status) { EXPECT_NE(status, VsockStatus::OK); })
        .attach(kj::mv(ours));
  };
  auto insist = [&](auto&& reach) {
    asked = 0;
    uint32_t told = 0;
    constexpr uint32_t TIMES = 5;
    for (uint32_t turn = 0; turn < TIMES; turn++) {
      kj::Vector<kj::Promise<void>> waiting;
      for (uint32_t i = 0; i < VsockExchange::MOST_WAITING; i++)
        waiting.add(reach().then([&]() { ++told; }).eagerlyEvaluate(nullptr));
      scope.poll();
      timer.advanceTo(timer.now() + 1 * kj::MINUTES);  // none of them is waited for any more
      scope.poll();
    }
    EXPECT_EQ(asked, VsockExchange::MOST_WAITING);
    EXPECT_EQ(told, TIMES * VsockExchange::MOST_WAITING);
  };
  insist(reachHost);
  insist(reachGuest);
}

}  // namespace
}  // namespace troupe::realm
