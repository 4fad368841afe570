#include "vmm/serve/vsock_exchange.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "vmm/fd_handle.h"

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

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::Own<VsockExchange> exchange = kj::refcounted<VsockExchange>(io.provider->getTimer());
  FakeDevice device, other;
  kj::Own<VsockExchange::Listening> listening;
};

TEST(VsockExchange, AGuestReachesWhoeverListensOnTheHost) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  EXPECT_TRUE(bench.ask(*guest, 2, 52) == nullptr);
  auto pair = makePair();
  EXPECT_EQ(
      bench.exchange->listen(52, kj::heap<FakeListener>(kj::mv(pair.theirs)), bench.listening),
      VsockStatus::OK);
  auto socket = bench.ask(*guest, 2, 52);
  ASSERT_TRUE(socket != nullptr);
  EXPECT_TRUE(areConnected(socket, pair.ours));
  EXPECT_EQ(fcntl(socket, F_GETFL) & O_NONBLOCK, O_NONBLOCK);  // as devices want it
}

TEST(VsockExchange, APortHasOneListenerUntilThatEnds) {
  Bench bench;
  auto listener = [] { return kj::heap<FakeListener>(makePair().theirs); };
  EXPECT_EQ(bench.exchange->listen(52, listener(), bench.listening), VsockStatus::OK);
  kj::Own<VsockExchange::Listening> second;
  EXPECT_EQ(bench.exchange->listen(52, listener(), second), VsockStatus::ALREADY_BOUND);
  EXPECT_TRUE(second.get() == nullptr);
  bench.listening = nullptr;
  EXPECT_EQ(bench.exchange->listen(52, listener(), second), VsockStatus::OK);
}

TEST(VsockExchange, AListenerThatRefusesOrGivesNoStreamIsNobody) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  bench.exchange->listen(52,
                         kj::heap<FakeListener>(makePair().theirs, VsockStatus::CONNECTION_REFUSED),
                         bench.listening);
  EXPECT_TRUE(bench.ask(*guest, 2, 52) == nullptr);
  for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    bench.listening = nullptr;
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, type, 0, fds));
    kj::AutoCloseFd one(fds[0]), its(fds[1]);
    bench.exchange->listen(52, kj::heap<FakeListener>(kj::mv(its)), bench.listening);
    EXPECT_TRUE(bench.ask(*guest, 2, 52) == nullptr);
  }
  bench.listening = nullptr;
  kj::AutoCloseFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  bench.exchange->listen(52, kj::heap<FakeListener>(kj::mv(file)), bench.listening);
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

TEST(VsockExchange, APortInUseIsNoListenersAndAListenersIsNotUsed) {
  Bench bench;
  auto guest = bench.join(3, bench.device);
  EXPECT_EQ(bench.connect(3, 22), VsockStatus::OK);
  auto listener = [] { return kj::heap<FakeListener>(makePair().theirs); };
  EXPECT_EQ(bench.exchange->listen(49152, listener(), bench.listening), VsockStatus::ALREADY_BOUND);
  EXPECT_EQ(bench.exchange->listen(49153, listener(), bench.listening), VsockStatus::OK);
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

}  // namespace
}  // namespace troupe::realm
