#include "vmm/vsock/vsock_connector.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "vmm/actors/actor.h"

namespace troupe {
namespace {

constexpr uint64_t HOST = 2;

sockaddr_un addressOf(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// A connector and, at the other end of its pipe, whoever plays the device.
struct Bench {
  Bench() : base("/tmp/troupe-connector-test-" + std::to_string(getpid())) {
    auto pair = makeSocketPair();
    kj::StringPtr path = base.c_str();
    connector = kj::heap<VsockConnector>(io, kj::mv(pair.ours), path);
    stream = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(pair.theirs));
    rpc = kj::heap<capnp::TwoPartyClient>(*stream, 4);
    client = rpc->bootstrap().castAs<Connector>();
  }
  ~Bench() { unlink((base + "_52").c_str()); }

  kj::AutoCloseFd listenAt52(int backlog) {
    int fd;
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    auto address = addressOf(base + "_52");
    KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    KJ_SYSCALL(listen(fd, backlog));
    return kj::AutoCloseFd(fd);
  }
  kj::Promise<capnp::Response<Connector::ConnectResults>> ask(uint64_t cid, uint32_t port) {
    auto request = client.connectRequest();
    request.setCid(cid);
    request.setPort(port);
    return request.send();
  }
  bool finds(uint64_t cid, uint32_t port) { return ask(cid, port).wait(io.waitScope).hasSocket(); }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  std::string base;
  kj::Own<VsockConnector> connector;
  kj::Own<kj::AsyncCapabilityStream> stream;
  kj::Own<capnp::TwoPartyClient> rpc;
  Connector::Client client = nullptr;
};

TEST(VsockConnector, ConnectsToWhoeverListensBehindThePath) {
  Bench bench;
  auto listening = bench.listenAt52(5);
  auto response = bench.ask(HOST, 52).wait(bench.io.waitScope);
  ASSERT_TRUE(response.hasSocket());
  auto fd = response.getSocket().getFd().wait(bench.io.waitScope);
  kj::AutoCloseFd ours(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_GE(ours.get(), 0);
  ASSERT_EQ(write(KJ_ASSERT_NONNULL(fd), "x", 1), 1);
  char byte;
  EXPECT_EQ(read(ours, &byte, 1), 1);
}

TEST(VsockConnector, FindsNobodyWhereNobodyListens) {
  Bench bench;
  EXPECT_FALSE(bench.finds(HOST, 52));
  { auto gone = bench.listenAt52(5); }
  EXPECT_FALSE(bench.finds(HOST, 52));  // the file is there, nobody behind it
}

TEST(VsockConnector, FindsNobodyAtOtherCids) {
  Bench bench;
  auto listening = bench.listenAt52(5);
  for (uint64_t cid : {uint64_t(0), uint64_t(1), uint64_t(3), UINT64_MAX})
    EXPECT_FALSE(bench.finds(cid, 52));
}

TEST(VsockConnector, WaitsForAServerWhoseBacklogIsFull) {
  Bench bench;
  auto listening = bench.listenAt52(0);
  kj::Vector<kj::Promise<capnp::Response<Connector::ConnectResults>>> asked;
  for (int i = 0; i < 5; i++)
    asked.add(bench.ask(HOST, 52));
  kj::Vector<kj::AutoCloseFd> served;
  for (auto& one : asked) {
    // Makes room for the next.
    auto tick = bench.io.provider->getTimer().afterDelay(5 * kj::MILLISECONDS);
    tick.wait(bench.io.waitScope);
    int fd = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) served.add(kj::AutoCloseFd(fd));
    EXPECT_TRUE(one.wait(bench.io.waitScope).hasSocket());
  }
}

// A device that was taken over asks without end and drops nothing: it is cut off, and `troupe`
// keeps no more fds for it than a few.
TEST(VsockConnector, VSK05_DeviceThatAsksWithoutEndIsCutOff) {
  Bench bench;
  auto listening = bench.listenAt52(0);
  kj::Vector<kj::Promise<capnp::Response<Connector::ConnectResults>>> asked;
  for (int i = 0; i < 200; i++)
    asked.add(bench.ask(HOST, 52));
  uint32_t failed = 0;
  for (auto& one : asked)
    kj::mv(one).then([](auto&&) {}, [&](kj::Exception&&) { failed++; }).wait(bench.io.waitScope);
  EXPECT_GT(failed, 0);
}

TEST(VsockConnector, VSK05_DeviceThatDropsNothingGetsNoMore) {
  Bench bench;
  auto listening = bench.listenAt52(4096);
  kj::Vector<Handle::Client> kept;
  for (int i = 0; i < 128; i++) {
    auto response = bench.ask(HOST, 52).wait(bench.io.waitScope);
    ASSERT_TRUE(response.hasSocket());
    kept.add(response.getSocket());
  }
  auto next = bench.ask(HOST, 52);
  EXPECT_FALSE(next.poll(bench.io.waitScope));
  kept.clear();
  EXPECT_TRUE(next.wait(bench.io.waitScope).hasSocket());
}

}  // namespace
}  // namespace troupe
