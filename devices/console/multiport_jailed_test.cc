// A console of several ports as shipped: the real executable in its real jail, with this test as
// broker, driver and everybody on the host.
#include <capnp/message.h>
#include <endian.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "devices/console/console.capnp.h"
#include "devices/console/console_profile.h"
#include "devices/console/testing/console_driver.h"
#include "devices/console/testing/loop.h"
#include "devices/console/wire.h"
#include "devices/virtio/testing/process_bench.h"
#include "tests/rpc/garbage.h"

namespace troupe::console {
namespace {

using sandbox::HandedFd;
using testing::ConsoleDriver;
using testing::Heard;
using testing::noise;
using virtio::testing::FakeRam;
using virtio::testing::ProcessBench;

constexpr int CLIENTS = 16;  // of one socket

// A listening unix socket without a name in the file system.
struct Listener {
  kj::AutoCloseFd fd = newSocket();
  sockaddr_un address = {};
  socklen_t size = sizeof(address);

  Listener() {
    address.sun_family = AF_UNIX;
    KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)));
    KJ_SYSCALL(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size));
    KJ_SYSCALL(listen(fd, 64));
  }
  static kj::AutoCloseFd newSocket() {
    int fd;
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return kj::AutoCloseFd(fd);
  }
  kj::AutoCloseFd connectClient() {
    auto client = newSocket();
    KJ_SYSCALL(connect(client, reinterpret_cast<sockaddr*>(&address), size));
    return client;
  }
};

struct Terminal {
  kj::AutoCloseFd master;
  kj::AutoCloseFd slave;

  Terminal() {
    int fds[2];
    KJ_SYSCALL(openpty(&fds[0], &fds[1], nullptr, nullptr, nullptr));
    master = kj::AutoCloseFd(fds[0]);
    slave = kj::AutoCloseFd(fds[1]);
    termios mode;
    KJ_SYSCALL(tcgetattr(slave, &mode));
    cfmakeraw(&mode);
    KJ_SYSCALL(tcsetattr(slave, TCSANOW, &mode));
  }
};

// A port of each kind, and eight in all.
enum PortOf : uint16_t { STDIO, FILE0, PTY0, SOCKET0, AGENT, FILE1, PTY1, SOCKET1, PORTS };

// The process and what it was handed.
struct Console {
  testing::Pair in = testing::pipePair();
  testing::Pair out = testing::pipePair();
  kj::AutoCloseFd files[2] = {testing::memoryFile(), testing::memoryFile()};
  Terminal terminals[2];
  Listener listeners[2];
  Listener agent;  // of a plain port without replay
  FakeRam ram{16 * FakeRam::MIB};
  kj::Own<ProcessBench> bench;
  kj::Own<ConsoleDriver> driver;

  Console() {
    capnp::MallocMessageBuilder message;
    auto ports = message.initRoot<ConsoleConfig>().initPorts(PORTS);
    auto set = [&](uint16_t port, ConsolePort::Backend backend, uint16_t index) {
      ports[port].setBackend(backend);
      ports[port].setFdIndex(index);
    };
    set(STDIO, ConsolePort::Backend::STDIO, 0);
    set(FILE0, ConsolePort::Backend::FILE, 1);
    set(PTY0, ConsolePort::Backend::PTY, 0);
    set(SOCKET0, ConsolePort::Backend::SOCKET, 0);
    set(AGENT, ConsolePort::Backend::SOCKET, 1);
    set(FILE1, ConsolePort::Backend::FILE, 2);
    set(PTY1, ConsolePort::Backend::PTY, 1);
    set(SOCKET1, ConsolePort::Backend::SOCKET, 2);
    ports[AGENT].setPlain(true);
    ports[AGENT].setName("agent");
    ports[AGENT].setReplay(false);
    HandedFd fds[] = {{"in", 0, in.theirs},
                      {"out", 0, out.ours},
                      {"out", 1, files[0]},
                      {"out", 2, files[1]},
                      {"pty", 0, terminals[0].master},
                      {"pty", 1, terminals[1].master},
                      {"listen", 0, listeners[0].fd},
                      {"listen", 1, agent.fd},
                      {"listen", 2, listeners[1].fd}};
    bench = kj::heap<ProcessBench>(ram, CONSOLE_PROFILE, "troupe-console", 2 + 2 * PORTS, fds,
                                   message.getRoot<capnp::AnyPointer>().asReader());
    driver = kj::heap<ConsoleDriver>(*bench, PORTS);
    bench->attach();
    bench->describe();  // behind it the fds that came with attach() are closed
  }

  // All ports open on the guest's side.
  void begin() {
    driver->activate();
    driver->offerControl(60);
    driver->say(DEVICE_READY, 1);
    for (uint16_t port = 0; port < PORTS; ++port)
      driver->hear();
    for (uint16_t port = 0; port < PORTS; ++port) {
      driver->say(PORT_READY, 1, port);
      if (port == AGENT) {
        EXPECT_EQ(driver->hear(), (Heard{AGENT, PORT_NAME, 1, "agent"}));
      } else {
        EXPECT_EQ(driver->hear(), (Heard{port, CONSOLE_PORT, 1, ""}));
        EXPECT_EQ(driver->hear(), (Heard{port, PORT_OPEN, 1, ""}));
      }
      driver->say(PORT_OPEN, 1, port);
    }
  }

  std::string differences(sandbox::Stage stage) {
    return kj::strArray(bench->attest(stage), "\n").cStr();
  }

  // What is there of `count` bytes within ten seconds.
  std::string read(int fd, size_t count) {
    std::string all;
    bench->waitUntil([&]() {
      pollfd ready = {fd, POLLIN, 0};
      while (all.size() < count && poll(&ready, 1, 0) == 1) {
        char piece[65536];
        ssize_t got = ::read(fd, piece, std::min(sizeof(piece), count - all.size()));
        if (got <= 0) return true;
        all.append(piece, got);
      }
      return all.size() == count;
    });
    return all;
  }

  void type(int fd, const std::string& text) {
    ASSERT_EQ(::write(fd, text.data(), text.size()), text.size());
  }

  std::string typed(uint16_t port, int fd, const std::string& text) {
    auto buffer = driver->offer(port);
    type(fd, text);
    return driver->input(port, buffer);
  }

  void expectOrderlyEnd() {
    bench->disconnect();
    int status = bench->waitForExit();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
};

TEST(MultiportJailed, EightPortsOfAllKindsCarryBytesBothWaysThroughResets) {
  Console console;
  EXPECT_EQ(console.differences(sandbox::Stage::READY), "");
  auto first = console.listeners[0].connectClient(), second = console.listeners[1].connectClient();
  for (int round = 0; round < 3; ++round) {
    console.begin();
    for (uint16_t port = 0; port < PORTS; ++port)
      console.driver->print(port, std::string("out of ") + char('0' + port));
    EXPECT_EQ(console.read(console.out.theirs, 8), "out of 0");
    EXPECT_EQ(console.read(console.terminals[0].slave, 8), "out of 2");
    EXPECT_EQ(console.read(first, 8), "out of 3");
    EXPECT_EQ(console.read(console.terminals[1].slave, 8), "out of 6");
    EXPECT_EQ(console.read(second, 8), "out of 7");
    EXPECT_EQ(console.typed(STDIO, console.in.ours, "in to 0"), "in to 0");
    EXPECT_EQ(console.typed(PTY0, console.terminals[0].slave, "in to 2"), "in to 2");
    EXPECT_EQ(console.typed(SOCKET0, first, "in to 3"), "in to 3");
    EXPECT_EQ(console.typed(PTY1, console.terminals[1].slave, "in to 6"), "in to 6");
    EXPECT_EQ(console.typed(SOCKET1, second, "in to 7"), "in to 7");
    EXPECT_EQ(console.differences(sandbox::Stage::RUN), "");
    console.bench->reset();
  }
  console.expectOrderlyEnd();
  EXPECT_EQ(testing::content(console.files[0]), "out of 1out of 1out of 1");
  EXPECT_EQ(testing::content(console.files[1]), "out of 5out of 5out of 5");
}

TEST(MultiportJailed, EverySocketHasItsSixteenClientsAndTellsOneMore) {
  Console console;
  console.begin();
  Listener* sockets[] = {&console.listeners[0], &console.listeners[1], &console.agent};
  uint16_t ports[] = {SOCKET0, SOCKET1, AGENT};
  kj::Vector<kj::AutoCloseFd> clients[3];
  for (int i = 0; i < CLIENTS; ++i) {
    for (int j = 0; j < 3; ++j)
      clients[j].add(sockets[j]->connectClient());
  }
  EXPECT_EQ(console.driver->hear(), (Heard{AGENT, PORT_OPEN, 1, ""}));
  for (int j = 0; j < 3; ++j) {
    auto extra = sockets[j]->connectClient();
    EXPECT_EQ(console.read(extra, 12), "TRP-con-002:");
    console.driver->print(ports[j], "for all");
    for (auto& client : clients[j])
      EXPECT_EQ(console.read(client, 7), "for all");
  }
  EXPECT_EQ(console.differences(sandbox::Stage::RUN), "");
  for (auto& all : clients)
    all.clear();
  EXPECT_EQ(console.driver->hear(), (Heard{AGENT, PORT_OPEN, 0, ""}));
  EXPECT_EQ(console.differences(sandbox::Stage::RUN), "");
  console.expectOrderlyEnd();
}

TEST(MultiportJailed, ALateReaderGetsTheLastMebibyteAndAStuckOneHoldsNobodyUp) {
  Console console;
  console.begin();
  auto stuck = console.listeners[0].connectClient();
  std::string all;
  for (int i = 0; i < 40; ++i) {
    all += noise(65536, i);
    console.driver->print(SOCKET0, all.substr(i * 65536));
  }
  auto late = console.listeners[0].connectClient();
  EXPECT_TRUE(console.read(late, 1 << 20) == all.substr(all.size() - (1 << 20)));
  console.driver->print(SOCKET1, "others go on");
  auto other = console.listeners[1].connectClient();
  EXPECT_EQ(console.read(other, 12), "others go on");
  console.expectOrderlyEnd();
}

TEST(MultiportJailed, WithoutReplayTheGuestIsToldWhoIsThere) {
  Console console;
  console.begin();
  console.driver->print(AGENT, "nobody keeps this");
  for (int round = 0; round < 3; ++round) {
    auto client = console.agent.connectClient();
    EXPECT_EQ(console.driver->hear(), (Heard{AGENT, PORT_OPEN, 1, ""}));
    EXPECT_EQ(console.typed(AGENT, client, "question"), "question");
    console.driver->print(AGENT, "answer");
    EXPECT_EQ(console.read(client, 6), "answer");
    client = nullptr;
    EXPECT_EQ(console.driver->hear(), (Heard{AGENT, PORT_OPEN, 0, ""}));
  }
  console.expectOrderlyEnd();
}

// Hostile guests and brokers.

TEST(MultiportJailed, CON_01_NonsenseOnTheControlQueues) {
  Console console;
  console.begin();
  std::mt19937 random(1);
  auto& hearing = console.driver->queue(CONTROL_TRANSMIT_QUEUE);
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 60; ++i) {
      ControlMessage message = {htole32(random() % 4 == 0 ? random() : random() % (PORTS + 2)),
                                htole16(random() % 4 == 0 ? random() : random() % 9),
                                htole16(random() % 4 == 0 ? random() : random() % 2)};
      uint64_t at = 8 * FakeRam::MIB + i * 64;
      memcpy(console.ram.bytes(at, 64).begin(), &message, sizeof(message));
      hearing.add({virtio::testing::readable(at, random() % 3 == 0 ? random() % 8 : 8)});
    }
    console.bench->kick(CONTROL_TRANSMIT_QUEUE);
    int taken = 0;
    console.bench->waitUntil([&]() {
      while (hearing.takeUsed() != nullptr)
        ++taken;
      return taken == 60;
    });
  }
  EXPECT_EQ(console.differences(sandbox::Stage::RUN), "");
  EXPECT_EQ(console.bench->host.resetsAsked, 0);
  console.bench->reset();
  console.begin();
  console.expectOrderlyEnd();
}

TEST(MultiportJailed, CFG_01_EveryWriteOfTheConfigurationIsHarmless) {
  Console console;
  console.begin();
  kj::byte all[] = {1, 2, 3, 4, 5, 6, 7, 8, '!', 10, 11, 12};
  for (uint32_t offset = 0; offset <= 12; ++offset) {
    for (uint32_t size = 0; offset + size <= 12; ++size)
      console.bench->writeConfig(offset, kj::arrayPtr(all + offset, size));
  }
  EXPECT_ANY_THROW(console.bench->writeConfig(12, kj::arrayPtr(all, 1)));
  EXPECT_ANY_THROW(console.bench->writeConfig(0xffffffff, kj::arrayPtr(all, 4)));
  // emerg_wr is port 0's.
  EXPECT_EQ(console.read(console.out.theirs, 9 * 4), std::string(9 * 4, '!'));
  console.expectOrderlyEnd();
}

TEST(MultiportJailed, RST_01_ResetWithAllQueuesAtWork) {
  Console console;
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    console.driver->activate();
    console.driver->offerControl(8, 64);
    for (uint16_t queue = 0; queue < 2 + 2 * PORTS; ++queue) {
      bool isReceive = queue % 2 == RECEIVE_QUEUE;
      for (int i = random() % 30; i > 0; --i) {
        auto address = 8 * FakeRam::MIB + random() % 65536;
        console.driver->queue(queue).add({virtio::testing::Buffer{address, 300, isReceive}});
      }
      console.bench->kick(queue);
    }
    console.bench->reset();
  }
  console.begin();
  console.expectOrderlyEnd();
}

TEST(MultiportJailed, BRK01_AServingProcessEndsInOrder) {
  troupe::testing::Target device{capnp::typeId<Device>(), 6, 1000};
  for (auto& piece : troupe::testing::garbage(device)) {
    Console console;
    console.driver->activate();
    console.bench->sendRaw(kj::arrayPtr(piece.bytes.data(), piece.bytes.size()));
    console.bench->disconnect();
    int status = console.bench->waitForExit();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << piece.name << ": " << status;
  }
}

}  // namespace
}  // namespace troupe::console
