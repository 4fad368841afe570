// The two actors as shipped: the real executable in its real jail, with this test as troupe,
// broker, driver and user.
#include <capnp/message.h>
#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "devices/console/console.capnp.h"
#include "devices/console/console_profile.h"
#include "devices/console/detach.h"
#include "devices/console/serial_profile.h"
#include "devices/console/testing/loop.h"
#include "devices/console/wire.h"
#include "devices/virtio/testing/device_bench.h"
#include "sandbox/attest.h"
#include "sandbox/launcher.h"

namespace troupe::console {
namespace {

using testing::noise;
using testing::Pair;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::makeHandle;

struct Terminal {
  kj::AutoCloseFd master;
  kj::AutoCloseFd slave;
};

Terminal rawTerminal() {
  int master, slave;
  KJ_SYSCALL(openpty(&master, &slave, nullptr, nullptr, nullptr));
  termios mode;
  KJ_SYSCALL(tcgetattr(slave, &mode));
  cfmakeraw(&mode);
  KJ_SYSCALL(tcsetattr(slave, TCSANOW, &mode));
  return {kj::AutoCloseFd(master), kj::AutoCloseFd(slave)};
}

struct Listener {
  kj::AutoCloseFd fd;
  sockaddr_un address = {};
  socklen_t size = sizeof(address);

  Listener() {
    fd = newSocket();
    address.sun_family = AF_UNIX;
    KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)));
    KJ_SYSCALL(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size));
    KJ_SYSCALL(listen(fd, 16));
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

void typeText(int fd, const std::string& text) {
  ASSERT_EQ(write(fd, text.data(), text.size()), text.size());
}

// Starts actors.
struct Bench {
  testing::Loop loop;
  kj::AutoCloseFd program;
  sandbox::Launcher launcher;
  Pair log = testing::pipePair();
  kj::Own<sandbox::Child> child;

  explicit Bench(sandbox::Jail jail) : launcher(loop.events, jail) {
    int fd;
    KJ_SYSCALL(fd = open("devices/troupe-devices", O_RDONLY | O_CLOEXEC));
    program = kj::AutoCloseFd(fd);
  }

  int exitStatus() {
    int status = loop.timer.timeoutAfter(20 * kj::SECONDS, child->onExit()).wait(loop.io.waitScope);
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    return -WTERMSIG(status);
  }

  // What differs from the profile, and what was logged.
  std::string complaints(const sandbox::Profile& profile, sandbox::Stage stage) {
    std::string all;
    auto result = sandbox::attest(profile, child->pid(), {stage, nullptr});
    for (auto& difference : result.differences)
      all += std::string(difference.cStr()) + "\n";
    return all;
  }

  std::string logged() {
    child = nullptr;
    return loop.readAll(log.theirs, 100000);
  }
};

// The serial actor, running, with the broker's end of its socket.
struct Serial: Bench {
  Pair uart = testing::socketPair();

  explicit Serial(sandbox::Jail jail = sandbox::Jail::ON) : Bench(jail) {}

  void start(ConsolePort::Backend backend, std::initializer_list<sandbox::HandedFd> fds) {
    kj::Vector<sandbox::HandedFd> all;
    all.add(sandbox::HandedFd{"uart", 0, uart.theirs});
    for (auto& fd : fds)
      all.add(fd);
    capnp::MallocMessageBuilder message;
    auto port = message.initRoot<ConsoleConfig>().initPorts(1)[0];
    port.setBackend(backend);
    port.setFollowsTerminal(backend == ConsolePort::Backend::STDIO);
    all.add(sandbox::HandedFd{"log", 0, log.ours});
    child = launcher.launch(SERIAL_PROFILE, program, "troupe-serial", "serial", all,
                            message.getRoot<capnp::AnyPointer>().asReader());
    log.ours = nullptr;
    uart.theirs = nullptr;
    child->started().wait(loop.io.waitScope);
  }

  void expectAttested() {
    EXPECT_TRUE(loop.until([&]() {
      return complaints(SERIAL_PROFILE, sandbox::Stage::RUN).empty();
    })) << complaints(SERIAL_PROFILE, sandbox::Stage::RUN);
  }

  void expectCleanEnd() {
    uart.ours = nullptr;
    EXPECT_EQ(exitStatus(), 0);
    EXPECT_EQ(logged(), "");
  }
};

TEST(SerialJailed, StandardStreamsCarryBytesBothWays) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  Serial serial;
  serial.start(ConsolePort::Backend::STDIO, {{"in", 0, in.theirs}, {"out", 0, out.ours}});
  serial.expectAttested();
  typeText(serial.uart.ours, "guest says");
  EXPECT_EQ(serial.loop.readAll(out.theirs, 10), "guest says");
  typeText(in.ours, "user says");
  EXPECT_EQ(serial.loop.readAll(serial.uart.ours, 9), "user says");
  in.ours = nullptr;  // the end of the input is not the end
  typeText(serial.uart.ours, "bye");
  serial.expectCleanEnd();
  EXPECT_EQ(serial.loop.readAll(out.theirs, 3), "bye");
}

TEST(SerialJailed, WorksWithTheJailOff) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  Serial serial(sandbox::Jail::OFF);
  serial.start(ConsolePort::Backend::STDIO, {{"in", 0, in.theirs}, {"out", 0, out.ours}});
  typeText(serial.uart.ours, "guest says");
  EXPECT_EQ(serial.loop.readAll(out.theirs, 10), "guest says");
  serial.expectCleanEnd();
}

TEST(SerialJailed, ClosedStandardStreamsDoNotKillIt) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  Serial serial;
  serial.start(ConsolePort::Backend::STDIO, {{"in", 0, in.theirs}, {"out", 0, out.ours}});
  in.ours = nullptr;
  in.theirs = nullptr;
  out.theirs = nullptr;
  out.ours = nullptr;
  for (int i = 0; i < 10; ++i) {
    typeText(serial.uart.ours, noise(5000));
    serial.loop.turn(5 * kj::MILLISECONDS);
  }
  serial.expectCleanEnd();
}

TEST(SerialJailed, FileGetsAllOutputBeforeTheEnd) {
  auto file = testing::memoryFile("old ");
  KJ_SYSCALL(fcntl(file, F_SETFL, O_APPEND));
  Serial serial;
  serial.start(ConsolePort::Backend::FILE, {{"out", 0, file}});
  serial.expectAttested();
  std::string text = noise(3 << 20);
  typeText(serial.uart.ours, text);
  serial.expectCleanEnd();
  EXPECT_TRUE(testing::content(file) == "old " + text);
}

TEST(SerialJailed, SocketServesManyReadersWhoComeAndGo) {
  Listener listener;
  Serial serial;
  serial.start(ConsolePort::Backend::SOCKET, {{"listen", 0, listener.fd}});
  serial.expectAttested();
  typeText(serial.uart.ours, "early ");
  for (int round = 0; round < 5; ++round) {
    kj::Vector<kj::AutoCloseFd> clients;
    for (int i = 0; i < 16; ++i)
      clients.add(listener.connectClient());
    for (auto& client : clients)
      EXPECT_EQ(serial.loop.readAll(client, 6), "early ");
    serial.loop.turn();
    // Connections lie at the numbers the profile gives them.
    if (round == 4) serial.expectAttested();
    typeText(clients.back(), "typed");
    EXPECT_EQ(serial.loop.readAll(serial.uart.ours, 5), "typed");
  }
  // One client too many is told so, and everybody stays alive.
  kj::Vector<kj::AutoCloseFd> clients;
  for (int i = 0; i < 16; ++i)
    clients.add(listener.connectClient());
  for (auto& client : clients)
    EXPECT_EQ(serial.loop.readAll(client, 6), "early ");
  auto extra = listener.connectClient();
  EXPECT_EQ(serial.loop.readAll(extra, 1000).substr(0, 13), "TRP-con-002: ");
  clients.clear();
  serial.loop.turn();
  auto client = listener.connectClient();
  typeText(serial.uart.ours, "late");
  EXPECT_EQ(serial.loop.readAll(client, 10), "early late");
  serial.expectCleanEnd();
}

TEST(SerialJailed, PtyCarriesBytesBothWays) {
  auto terminal = rawTerminal();
  Serial serial;
  serial.start(ConsolePort::Backend::PTY, {{"pty", 0, terminal.master}});
  serial.expectAttested();
  typeText(serial.uart.ours, "guest");
  EXPECT_EQ(serial.loop.readAll(terminal.slave, 5), "guest");
  typeText(terminal.slave, "user");
  EXPECT_EQ(serial.loop.readAll(serial.uart.ours, 4), "user");
  serial.expectCleanEnd();
}

TEST(SerialJailed, DetachKeyOnATerminalExitsWithItsStatus) {
  auto terminal = rawTerminal();
  Serial serial;
  serial.start(ConsolePort::Backend::STDIO,
               {{"in", 0, terminal.slave}, {"out", 0, terminal.slave}});
  typeText(terminal.master, "x");
  EXPECT_EQ(serial.loop.readAll(serial.uart.ours, 1), "x");
  typeText(terminal.master, std::string(1, DETACH_KEY));
  EXPECT_EQ(serial.exitStatus(), DETACH_STATUS);
}

// The console actor with a broker and a driver.
struct Console: Bench {
  FakeRam ram;
  Pair rpc = testing::socketPair();
  kj::AutoCloseFd kicks[2] = {testing::Loop::eventFd(), testing::Loop::eventFd()};
  kj::AutoCloseFd calls[2] = {testing::Loop::eventFd(), testing::Loop::eventFd()};
  kj::Own<FakeDriver> receive;
  kj::Own<FakeDriver> transmit;
  kj::Own<kj::AsyncCapabilityStream> stream;
  kj::Own<capnp::TwoPartyClient> network;
  kj::Maybe<Device::Client> device;

  Console() : Bench(sandbox::Jail::ON) {}

  class Host final: public DeviceHost::Server {
   public:
    explicit Host(int& changes) : changes(changes) {}
    kj::Promise<void> configChanged(ConfigChangedContext) override {
      ++changes;
      return kj::READY_NOW;
    }
    kj::Promise<void> needsReset(NeedsResetContext) override { return kj::READY_NOW; }

   private:
    int& changes;
  };
  int configChanges = 0;

  Device::Client& broker() { return KJ_ASSERT_NONNULL(device); }

  void start(ConsolePort::Backend backend, std::initializer_list<sandbox::HandedFd> fds) {
    capnp::MallocMessageBuilder message;
    auto port = message.initRoot<ConsoleConfig>().initPorts(1)[0];
    port.setBackend(backend);
    port.setFollowsTerminal(backend == ConsolePort::Backend::STDIO);
    kj::Vector<sandbox::HandedFd> all;
    all.add(sandbox::HandedFd{"rpc", 0, rpc.theirs});
    all.add(sandbox::HandedFd{"log", 0, log.ours});
    for (auto& fd : fds)
      all.add(fd);
    child = launcher.launch(CONSOLE_PROFILE, program, "troupe-console", "console0", all,
                            message.getRoot<capnp::AnyPointer>().asReader());
    log.ours = nullptr;
    rpc.theirs = nullptr;
    stream = loop.io.lowLevelProvider->wrapUnixSocketFd(kj::mv(rpc.ours));
    network = kj::heap<capnp::TwoPartyClient>(*stream, 64);
    device = network->bootstrap().castAs<Device>();
    attach();
    auto differences = complaints(CONSOLE_PROFILE, sandbox::Stage::READY);
    EXPECT_EQ(differences, "");
    activate();
  }

  void attach() {
    auto request = broker().attachRequest();
    ram.describe(request.initMemory());
    request.getMemory().setFile(makeHandle(ram.fd()));
    auto queues = request.initQueues(2);
    for (int i = 0; i < 2; ++i) {
      queues[i].setKick(makeHandle(kicks[i]));
      queues[i].setCall(makeHandle(calls[i]));
    }
    request.setHost(kj::heap<Host>(configChanges));
    request.send().wait(loop.io.waitScope);
  }

  void activate() {
    receive = kj::heap<FakeDriver>(ram, 64);
    transmit = kj::heap<FakeDriver>(ram, 64);
    auto request = broker().activateRequest();
    request.setFeatures(F_SIZE | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX |
                        virtio::F_VERSION_1);
    FakeDriver* drivers[] = {receive.get(), transmit.get()};
    auto layouts = request.initQueues(2);
    for (int i = 0; i < 2; ++i) {
      auto layout = drivers[i]->layout();
      layouts[i].setIndex(i);
      layouts[i].setSize(layout.size);
      layouts[i].setDescriptorTable(layout.descriptorTable);
      layouts[i].setAvailableRing(layout.availableRing);
      layouts[i].setUsedRing(layout.usedRing);
    }
    request.send().wait(loop.io.waitScope);
  }

  void kick(int queue) {
    uint64_t one = 1;
    ASSERT_EQ(write(kicks[queue], &one, sizeof(one)), sizeof(one));
  }

  void print(const std::string& text) {
    transmit->add({transmit->readableBuffer(testing::bytes(text))});
    kick(TRANSMIT_QUEUE);
    EXPECT_TRUE(loop.until([&]() { return transmit->takeUsed() != nullptr; }));
  }

  // What the driver gets next, in one buffer of its own.
  std::string takeInput() {
    auto buffer = receive->writableBuffer(256);
    receive->add({buffer});
    kick(RECEIVE_QUEUE);
    std::string text;
    EXPECT_TRUE(loop.until([&]() {
      KJ_IF_MAYBE (used, receive->takeUsed()) {
        auto data = ram.bytes(buffer.address, used->written);
        text.assign(reinterpret_cast<const char*>(data.begin()), data.size());
        return true;
      }
      return false;
    }));
    return text;
  }

  void resize(uint16_t columns, uint16_t rows) {
    auto request = broker().hostEventRequest();
    auto size = request.initEvent().initConsoleSize();
    size.setColumns(columns);
    size.setRows(rows);
    request.send().wait(loop.io.waitScope);
  }

  void reset() { broker().resetRequest().send().wait(loop.io.waitScope); }

  void disconnect() {
    device = nullptr;
    network = nullptr;
    stream = nullptr;
  }

  void expectCleanEnd() {
    disconnect();
    EXPECT_EQ(exitStatus(), 0);
    EXPECT_EQ(logged(), "");
  }
};

TEST(ConsoleJailed, StandardStreamsCarryBytesBothWaysThroughResetAndResize) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  Console console;
  console.start(ConsolePort::Backend::STDIO, {{"in", 0, in.theirs}, {"out", 0, out.ours}});
  for (int round = 0; round < 3; ++round) {
    console.print("guest says");
    EXPECT_EQ(console.loop.readAll(out.theirs, 10), "guest says");
    typeText(in.ours, "user says");
    EXPECT_EQ(console.takeInput(), "user says");
    console.resize(100 + round, 40);
    EXPECT_TRUE(console.loop.until([&]() { return console.configChanges == round + 1; }));
    console.reset();
    console.activate();
  }
  EXPECT_EQ(console.complaints(CONSOLE_PROFILE, sandbox::Stage::RUN), "");
  console.expectCleanEnd();
}

TEST(ConsoleJailed, LastOutputReachesTheFileWhenTheBrokerEnds) {
  auto file = testing::memoryFile();
  Console console;
  console.start(ConsolePort::Backend::FILE, {{"out", 0, file}});
  std::string text = noise(200000);
  auto buffer = console.transmit->readableBuffer(testing::bytes(text));
  console.transmit->add({buffer});
  console.kick(TRANSMIT_QUEUE);
  console.expectCleanEnd();
  EXPECT_TRUE(testing::content(file) == text);
}

TEST(ConsoleJailed, SocketServesManyReaders) {
  Listener listener;
  Console console;
  console.start(ConsolePort::Backend::SOCKET, {{"listen", 0, listener.fd}});
  console.print("early ");
  kj::Vector<kj::AutoCloseFd> clients;
  for (int i = 0; i < 16; ++i)
    clients.add(listener.connectClient());
  for (auto& client : clients)
    EXPECT_EQ(console.loop.readAll(client, 6), "early ");
  EXPECT_EQ(console.complaints(CONSOLE_PROFILE, sandbox::Stage::RUN), "");
  typeText(clients.back(), "typed");
  EXPECT_EQ(console.takeInput(), "typed");
  console.expectCleanEnd();
}

TEST(ConsoleJailed, PtyCarriesBytesBothWays) {
  auto terminal = rawTerminal();
  Console console;
  console.start(ConsolePort::Backend::PTY, {{"pty", 0, terminal.master}});
  console.print("guest");
  EXPECT_EQ(console.loop.readAll(terminal.slave, 5), "guest");
  typeText(terminal.slave, "user");
  EXPECT_EQ(console.takeInput(), "user");
  console.expectCleanEnd();
}

TEST(ConsoleJailed, DetachKeyOnATerminalExitsWithItsStatus) {
  auto terminal = rawTerminal();
  Console console;
  console.start(ConsolePort::Backend::STDIO,
                {{"in", 0, terminal.slave}, {"out", 0, terminal.slave}});
  typeText(terminal.master, std::string(1, DETACH_KEY));
  EXPECT_EQ(console.exitStatus(), DETACH_STATUS);
}

}  // namespace
}  // namespace troupe::console
