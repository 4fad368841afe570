#include "vmm/front/front_actor.h"

#include <capnp/rpc-twoparty.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "protos/fd_handle.h"

namespace troupe::front {
namespace {

// Plays `troupe`'s model.
class FakeVm final: public Vm::Server {
 public:
  explicit FakeVm(uint32_t& calls) : calls(calls) {}

  kj::Promise<void> status(StatusContext context) override {
    calls++;
    context.getResults().initStatus().setName("vm");
    return kj::READY_NOW;
  }
  kj::Promise<void> resizeDisk(ResizeDiskContext context) override {
    calls++;
    KJ_REQUIRE(context.getParams().getDisk() == "root", "TRP-cfg-036: no such disk");
    context.getResults().setBytes(context.getParams().getBytes());
    return kj::READY_NOW;
  }
  kj::Promise<void> events(EventsContext context) override {
    calls++;
    context.getResults().setReader(kj::heap<NoEvents>());
    return kj::READY_NOW;
  }

 private:
  class NoEvents final: public EventReader::Server {};

  uint32_t& calls;
};

class FreeSlots final: public ConnectionSlots {
 public:
  Placed place(int fd) override {
    taken++;
    return {0, kj::AutoCloseFd(dup(fd))};
  }
  void release(uint32_t) override { taken--; }

  uint32_t taken = 0;
};

// A front end in this process, and the client's end of one connection to it.
class Bench {
 public:
  Bench() : io(kj::setupAsyncIo()), front(kj::heap<FrontActor>(io, slots, []() {})) {}

  // What serve() of a new connection resolves to; `client` becomes its other end.
  kj::Promise<void> connect() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    client = kj::AutoCloseFd(fds[0]);
    auto request = front.serveRequest();
    request.setConnection(kj::heap<FdHandle>(kj::AutoCloseFd(fds[1])));
    request.setVm(kj::heap<FakeVm>(calls));
    return request.send().ignoreResult();
  }

  kj::Own<kj::AsyncIoStream> clientStream() {
    return io.lowLevelProvider->wrapSocketFd(kj::mv(client));
  }

  void send(kj::ArrayPtr<const kj::byte> bytes) {
    ASSERT_EQ(::write(client, bytes.begin(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }

  // Turns the loop until `promise` has resolved or the patience ends.
  bool endsSoon(kj::Promise<void> promise) {
    return promise.then([]() { return true; }, [](kj::Exception&&) { return true; })
        .exclusiveJoin(
            io.provider->getTimer().afterDelay(5 * kj::SECONDS).then([]() { return false; }))
        .wait(io.waitScope);
  }

  uint32_t calls = 0;
  FreeSlots slots;
  kj::AsyncIoContext io;
  FrontEnd::Client front;
  kj::AutoCloseFd client;
};

capnp::Capability::Client bootstrap(capnp::RpcSystem<capnp::rpc::twoparty::VatId>& rpc) {
  capnp::MallocMessageBuilder message(8);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(vatId);
}

// A client on its own connection.
struct Client {
  kj::Own<kj::AsyncIoStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;

  explicit Client(Bench& bench)
      : stream(bench.clientStream()),
        network(*stream, capnp::rpc::twoparty::Side::CLIENT),
        rpc(capnp::makeRpcClient(network)) {}

  Vm::Client vm() { return bootstrap(rpc).castAs<Vm>(); }
};

TEST(FrontActor, ForwardsATypedCall) {
  Bench bench;
  auto served = bench.connect();
  {
    Client client(bench);
    auto response = client.vm().statusRequest().send().wait(bench.io.waitScope);
    EXPECT_STREQ(response.getStatus().getName().cStr(), "vm");
  }
  EXPECT_EQ(bench.calls, 1);
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
}

TEST(FrontActor, ForwardsACallWithItsWordsAndItsRefusal) {
  Bench bench;
  auto served = bench.connect();
  {
    Client client(bench);
    auto resize = [&](kj::StringPtr disk) {
      auto request = client.vm().resizeDiskRequest();
      request.setDisk(disk);
      request.setBytes(4096);
      return request.send().wait(bench.io.waitScope).getBytes();
    };
    EXPECT_EQ(resize("root"), 4096u);
    auto refusal = kj::runCatchingExceptions([&] { resize("boot"); });
    EXPECT_NE(strstr(KJ_ASSERT_NONNULL(refusal).getDescription().cStr(), "TRP-cfg-036"), nullptr);
    EXPECT_EQ(bench.calls, 2);
    EXPECT_ANY_THROW(resize(kj::str(kj::repeat('x', 257))));
    EXPECT_EQ(bench.calls, 2) << "no disk has such an id";
  }
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
}

TEST(FrontActor, GarbageEndsOnlyItsOwnConnection) {
  Bench bench;
  auto garbage = bench.connect();
  kj::byte bytes[4096];
  for (size_t i = 0; i < sizeof(bytes); i++)
    bytes[i] = static_cast<kj::byte>(i * 131 + 7);
  bench.send(bytes);
  EXPECT_TRUE(bench.endsSoon(kj::mv(garbage)));
  EXPECT_EQ(bench.slots.taken, 0);

  auto served = bench.connect();
  {
    Client client(bench);
    client.vm().statusRequest().send().wait(bench.io.waitScope);
  }
  EXPECT_EQ(bench.calls, 1);
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
}

TEST(FrontActor, AMessageThatClaimsAGigabyteEndsTheConnection) {
  Bench bench;
  auto served = bench.connect();
  // One segment of 2^27 words: the segment table of a Cap'n Proto stream message.
  const kj::byte header[] = {0, 0, 0, 0, 0, 0, 0, 8};
  bench.send(header);
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
}

TEST(FrontActor, ManySegmentsEndTheConnection) {
  Bench bench;
  auto served = bench.connect();
  const kj::byte header[] = {0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0};
  bench.send(header);
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
}

TEST(FrontActor, AClientThatLeavesGivesItsPlaceBack) {
  Bench bench;
  auto served = bench.connect();
  bench.client = nullptr;
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
  EXPECT_EQ(bench.slots.taken, 0);
}

TEST(FrontActor, AClientHasSoManyReadersOfEventsAtOnceAndNoMore) {
  Bench bench;
  auto served = bench.connect();
  {
    Client client(bench);
    auto vm = client.vm();
    auto open = [&]() { return vm.eventsRequest().send().wait(bench.io.waitScope).getReader(); };
    kj::Vector<EventReader::Client> readers;
    for (int i = 0; i < 16; i++)
      readers.add(open());
    EXPECT_ANY_THROW(open());
    EXPECT_EQ(bench.calls, 16) << "`troupe` has as many";
    readers.removeLast();
    // The release of the one comes before the next call.
    readers.add(open());
    EXPECT_EQ(bench.calls, 17);
    readers.clear();
  }
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
}

TEST(FrontActor, AClientWithManyOpenQuestionsIsLetGo) {
  Bench bench;
  auto served = bench.connect();
  for (uint32_t i = 0; i < 65; i++) {
    capnp::MallocMessageBuilder message;
    message.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(i);
    bench.send(capnp::messageToFlatArray(message).asBytes());
  }
  EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
  EXPECT_EQ(bench.slots.taken, 0);
}

TEST(FrontActor, AClientThatAsksForEverIsLetGo) {
  Bench bench;
  auto served = bench.connect();
  {
    Client client(bench);
    auto vm = client.vm();
    bool refused = false;
    constexpr uint32_t BATCHES = 201;
    for (uint32_t batch = 0; batch < BATCHES && !refused; batch++) {
      constexpr uint32_t CALLS = 50;
      kj::Vector<kj::Promise<void>> calls;
      for (uint32_t i = 0; i < CALLS; i++) {
        calls.add(vm.statusRequest().send().ignoreResult().catch_(
            [&refused](kj::Exception&&) { refused = true; }));
      }
      kj::joinPromises(calls.releaseAsArray()).wait(bench.io.waitScope);
    }
    EXPECT_TRUE(refused);
    EXPECT_TRUE(bench.endsSoon(kj::mv(served)));
  }
  EXPECT_EQ(bench.slots.taken, 0);
}

}  // namespace
}  // namespace troupe::front
