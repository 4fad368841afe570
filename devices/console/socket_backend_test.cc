#include "devices/console/socket_backend.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/console/polled_fd.h"
#include "devices/console/testing/loop.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::noise;

size_t openFds() {
  size_t count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr)
    ++count;
  closedir(folder);
  return count;
}

// A line behind a listening socket (one without a name in the file system).
struct Bench {
  testing::Loop loop;
  Line line{loop.timer};
  kj::AutoCloseFd listening;
  sockaddr_un address = {};
  socklen_t addressSize = sizeof(address);
  kj::Own<SocketBackend> backend;

  explicit Bench(SocketBackend::Replay replay = SocketBackend::Replay::ON) {
    listening = newSocket();
    address.sun_family = AF_UNIX;
    // The family alone: the kernel chooses an abstract name.
    KJ_SYSCALL(bind(listening, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)));
    KJ_SYSCALL(getsockname(listening, reinterpret_cast<sockaddr*>(&address), &addressSize));
    KJ_SYSCALL(listen(listening, 64));
    backend = kj::heap<SocketBackend>(loop.events, line, listening, replay);
    line.guest.set(true);
    line.output.write(bytes("> "));
  }

  static kj::AutoCloseFd newSocket() {
    int fd;
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return kj::AutoCloseFd(fd);
  }

  kj::AutoCloseFd connectClient() {
    auto client = newSocket();
    KJ_SYSCALL(connect(client, reinterpret_cast<sockaddr*>(&address), addressSize));
    loop.turn();
    return client;
  }

  std::string guestGets() {
    loop.turn();
    auto waiting = line.input.waiting();
    std::string text(reinterpret_cast<const char*>(waiting.begin()), waiting.size());
    line.input.took(waiting.size());
    return text;
  }
};

void type(int fd, const std::string& text) {
  ASSERT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), text.size());
}

TEST(SocketBackend, LateReaderGetsEarlyBytes) {
  Bench bench;
  std::string text = noise(700000);
  bench.line.output.write(bytes(text));
  auto client = bench.connectClient();
  EXPECT_TRUE(bench.loop.readAll(client, 2 + text.size()) == "> " + text);
  bench.line.output.write(bytes("and more"));
  EXPECT_EQ(bench.loop.readAll(client, 8), "and more");
}

TEST(SocketBackend, LateReaderGetsTheLastMebibyte) {
  Bench bench;
  std::string text = noise((1 << 20) + 5000);
  bench.line.output.write(bytes(text));
  auto client = bench.connectClient();
  EXPECT_TRUE(bench.loop.readAll(client, 1 << 20) == text.substr(5000));
}

TEST(SocketBackend, ConnectionsWaitUntilTheGuestRuns) {
  testing::Loop loop;
  Line line(loop.timer);
  auto listening = Bench::newSocket();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  socklen_t size = sizeof(address);
  KJ_SYSCALL(bind(listening, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)));
  KJ_SYSCALL(getsockname(listening, reinterpret_cast<sockaddr*>(&address), &size));
  KJ_SYSCALL(listen(listening, 64));
  SocketBackend backend(loop.events, line, listening, SocketBackend::Replay::ON);
  auto client = Bench::newSocket();
  KJ_SYSCALL(connect(client, reinterpret_cast<sockaddr*>(&address), size));
  size_t before = openFds();
  loop.turn();
  EXPECT_EQ(openFds(), before);
  line.guest.set(true);
  line.output.write(bytes("hello"));
  EXPECT_EQ(loop.readAll(client, 5), "hello");
}

TEST(SocketBackend, WithoutReplayALateReaderGetsWhatComesThen) {
  Bench bench(SocketBackend::Replay::OFF);
  auto first = bench.connectClient();
  bench.line.output.write(bytes("one "));
  auto second = bench.connectClient();
  bench.line.output.write(bytes("two"));
  EXPECT_EQ(bench.loop.readAll(first, 7), "one two");
  EXPECT_EQ(bench.loop.readAll(second, 3), "two");
}

TEST(SocketBackend, WithoutReplayTheHostIsOpenWhileSomebodyIsConnected) {
  Bench bench(SocketBackend::Replay::OFF);
  EXPECT_FALSE(bench.line.host.isOpen());
  auto first = bench.connectClient();
  EXPECT_TRUE(bench.line.host.isOpen());
  auto second = bench.connectClient();
  first = nullptr;
  bench.loop.turn();
  EXPECT_TRUE(bench.line.host.isOpen());
  second = nullptr;
  bench.loop.turn();
  EXPECT_FALSE(bench.line.host.isOpen());
  auto third = bench.connectClient();
  EXPECT_EQ(bench.line.host.openings(), 3);  // one is that of a line without a back end
}

TEST(SocketBackend, WithReplayTheHostIsAlwaysOpen) {
  Bench bench;
  EXPECT_TRUE(bench.line.host.isOpen());
  { auto client = bench.connectClient(); }
  bench.loop.turn();
  EXPECT_TRUE(bench.line.host.isOpen());
}

TEST(SocketBackend, ManyReadersGetTheSame) {
  Bench bench;
  std::string text = noise(400000);
  kj::Vector<kj::AutoCloseFd> clients;
  for (kj::uint i = 0; i < SocketBackend::MAX_CLIENTS; ++i)
    clients.add(bench.connectClient());
  auto writing = testing::writeCarefully(bench.line.output, text).eagerlyEvaluate(nullptr);
  for (auto& client : clients) {
    EXPECT_TRUE(bench.loop.readAll(client, 2 + text.size()) == "> " + text);
  }
}

TEST(SocketBackend, OneClientTooManyIsToldSoAndTheOthersStay) {
  Bench bench;
  kj::Vector<kj::AutoCloseFd> clients;
  for (kj::uint i = 0; i < SocketBackend::MAX_CLIENTS; ++i)
    clients.add(bench.connectClient());
  auto extra = bench.connectClient();
  std::string refusal = bench.loop.readAll(extra, 1000);  // to the end
  EXPECT_EQ(refusal.substr(0, 13), "TRP-con-002: ");
  bench.line.output.write(bytes("x"));
  EXPECT_EQ(bench.loop.readAll(clients[0], 3), "> x");
  clients[3] = nullptr;
  bench.loop.turn();
  auto next = bench.connectClient();
  EXPECT_EQ(bench.loop.readAll(next, 3), "> x");
}

TEST(SocketBackend, StuckReaderNeitherBlocksTheGuestNorTheOthersNorGrowsMemory) {
  Bench bench;
  auto stuck = bench.connectClient();
  std::string text = noise(1 << 20);
  testing::writeCarefully(bench.line.output, text).wait(bench.loop.io.waitScope);
  size_t before = testing::residentBytes();
  auto start = bench.loop.timer.now();
  for (int i = 0; i < 20; ++i) {
    testing::writeCarefully(bench.line.output, text).wait(bench.loop.io.waitScope);
  }
  EXPECT_LT(bench.loop.timer.now() - start, 2 * kj::SECONDS);
  EXPECT_LT(testing::residentBytes(), before + (10 << 20));  // of 20 MiB; sanitizers keep some
  auto reader = bench.connectClient();
  EXPECT_TRUE(bench.loop.readAll(reader, 1 << 20) == text);
}

TEST(SocketBackend, LastToConnectWrites) {
  Bench bench;
  auto first = bench.connectClient();
  type(first, "one");
  EXPECT_EQ(bench.guestGets(), "one");
  auto second = bench.connectClient();
  type(second, "two");
  type(first, "lost");
  EXPECT_EQ(bench.guestGets(), "two");
}

TEST(SocketBackend, WriterThatLeavesGivesTheWordBack) {
  Bench bench;
  auto first = bench.connectClient();
  auto second = bench.connectClient();
  second = nullptr;
  bench.loop.turn();
  type(first, "mine again");
  EXPECT_EQ(bench.guestGets(), "mine again");
}

TEST(SocketBackend, ClientThatShutItsSendingSideReadsOnAndDoesNotWrite) {
  Bench bench;
  auto writer = bench.connectClient();
  auto logger = bench.connectClient();
  KJ_SYSCALL(shutdown(logger, SHUT_WR));
  bench.loop.turn();
  type(writer, "x");
  EXPECT_EQ(bench.guestGets(), "x");
  bench.line.output.write(bytes("log"));
  EXPECT_EQ(bench.loop.readAll(logger, 5), "> log");
}

TEST(SocketBackend, WhatAClientSentBeforeItLeftArrives) {
  Bench bench;
  auto client = bench.connectClient();
  std::string text = noise(3 * InputQueue::CAPACITY);
  type(client, text);
  client = nullptr;
  std::string got;
  bench.loop.until([&]() {
    got += bench.guestGets();
    return got.size() >= text.size();
  });
  EXPECT_EQ(got, text);
}

TEST(SocketBackend, InputWaitsInTheSocketWhileTheGuestTakesNone) {
  Bench bench;
  auto client = bench.connectClient();
  type(client, noise(100000));
  bench.loop.turn();
  EXPECT_EQ(bench.line.input.waiting().size(), InputQueue::CAPACITY);
}

TEST(SocketBackend, ClientsThatLeftUnheardDoNotKeepOthersOut) {
  Bench bench;
  for (kj::uint i = 0; i < 2 * SocketBackend::MAX_CLIENTS; ++i) {
    auto client = bench.connectClient();
    type(client, noise(3 * InputQueue::CAPACITY));
    client = nullptr;
    bench.loop.turn();
  }
  auto reader = bench.connectClient();
  EXPECT_EQ(bench.loop.readAll(reader, 2), "> ");
}

TEST(SocketBackend, ClientsThatComeAndGoLeaveNothingBehind) {
  Bench bench;
  { auto client = bench.connectClient(); }
  bench.loop.turn();
  size_t before = openFds();
  for (int i = 0; i < 300; ++i) {
    auto client = Bench::newSocket();
    KJ_SYSCALL(connect(client, reinterpret_cast<sockaddr*>(&bench.address), bench.addressSize));
    // Some are gone before they are accepted.
    if (i % 30 == 29) bench.loop.turn();
  }
  EXPECT_TRUE(bench.loop.until([&]() { return openFds() == before; }));
}

TEST(SocketBackend, FloodFromAReaderDoesNotStarveTheRest) {
  Bench bench;
  auto flooder = bench.connectClient();
  auto writer = bench.connectClient();
  makeNonBlocking(flooder);
  std::string flood(65536, 'x');
  type(writer, "word");
  EXPECT_TRUE(bench.loop.until([&]() {
    while (send(flooder, flood.data(), flood.size(), MSG_NOSIGNAL) > 0) {
    }
    return bench.line.input.waiting().size() == 4;
  }));
}

}  // namespace
}  // namespace troupe::console
