// The actor as shipped, killed again and again while its ports talk: its successors go on with each
// of them, with this test as troupe, broker, driver and everybody on the host. How often:
// devices/virtio/testing/kills.h.
#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <pty.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <map>
#include <random>

#include "devices/console/console.capnp.h"
#include "devices/console/console_profile.h"
#include "devices/console/kept_port.h"
#include "devices/console/testing/loop.h"
#include "devices/console/wire.h"
#include "devices/virtio/queue_journal.h"
#include "devices/virtio/testing/kills.h"
#include "devices/virtio/testing/process_bench.h"
#include "devices/virtio/wire.h"
#include "sandbox/shared_memory.h"

namespace troupe::console {
namespace {

using sandbox::HandedFd;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::ProcessBench;

constexpr uint64_t JOURNAL_BYTES = 16 << 20;
constexpr uint64_t FEATURES =
    F_SIZE | F_MULTIPORT | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::F_VERSION_1;

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
    KJ_SYSCALL(fcntl(client, F_SETFL, O_NONBLOCK));
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
    KJ_SYSCALL(fcntl(slave, F_SETFL, O_NONBLOCK));
  }
};

// A socket with replay, a file, a terminal, and a socket of which the driver is told who is there.
enum PortOf : uint16_t { SOCKET, FILE0, PTY, AGENT, PORTS };

// A stream of words that are each other's successors, so that a gap or a repetition shows.
struct Words {
  std::string next() {
    auto word = kj::str(count++, "\n");
    all += word.cStr();
    return word.cStr();
  }
  uint32_t count = 0;
  std::string all;
};

// A driver of the ports that outlives the processes it is served by.
class CheckingDriver {
 public:
  explicit CheckingDriver(uint32_t seed) : random(seed) {
    for (uint16_t queue = 0; queue < 2 + 2 * PORTS; queue++)
      queues.push_back(kj::heap<FakeDriver>(ram, uint16_t(64)));
    for (uint16_t port = 0; port < PORTS; port++) {
      for (int i = 0; i < 16; i++)
        places[port].push_back(ram.allocate(PLACE));
      for (int i = 0; i < 16; i++)
        offer(receiveQueueOf(port));
    }
    for (int i = 0; i < 60; i++)
      offer(CONTROL_RECEIVE_QUEUE);
  }

  std::vector<FakeDriver*> drivers() {
    std::vector<FakeDriver*> all;
    for (auto& queue : queues)
      all.push_back(queue.get());
    return all;
  }

  // Prints some words on a port, in one chain of a few buffers.
  void print(uint16_t port) {
    while (!places[port].empty()) {
      uint64_t place = places[port].back();
      places[port].pop_back();
      std::string text;
      for (uint32_t i = 1 + random() % 300; i > 0; i--)
        text += printed[port].next();
      KJ_ASSERT(text.size() <= PLACE);
      memcpy(ram.bytes(place, text.size()).begin(), text.data(), text.size());
      uint32_t part = text.size() / 2;
      uint16_t head = queue(transmitQueueOf(port))
                          .add({virtio::testing::readable(place, part),
                                virtio::testing::readable(place + part, text.size() - part)});
      sent[port][head] = place;
    }
  }

  // Takes what came back on all queues.
  void check() {
    for (uint16_t port = 0; port < PORTS; port++) {
      drain(transmitQueueOf(port), [&](FakeDriver::Used used) {
        auto found = sent[port].find(used.head);
        ASSERT_NE(found, sent[port].end()) << "returned twice";
        places[port].push_back(found->second);
        sent[port].erase(found);
      });
      drain(receiveQueueOf(port), [&](FakeDriver::Used used) {
        typed[port] += takeBuffer(receiveQueueOf(port), used);
        offer(receiveQueueOf(port));
      });
    }
    drain(CONTROL_TRANSMIT_QUEUE, [&](FakeDriver::Used) { --toSay; });
    drain(CONTROL_RECEIVE_QUEUE, [&](FakeDriver::Used used) {
      hear(takeBuffer(CONTROL_RECEIVE_QUEUE, used));
      offer(CONTROL_RECEIVE_QUEUE);
    });
  }

  void kick(ProcessBench& bench) {
    for (uint16_t i = 0; i < queues.size(); i++)
      if (queues[i]->shouldKick()) bench.kick(i);
  }

  void say(uint16_t event, uint16_t value, uint32_t port = 0) {
    ControlMessage message = {htole32(port), htole16(event), htole16(value)};
    auto& control = queue(CONTROL_TRANSMIT_QUEUE);
    control.add({control.readableBuffer(kj::arrayPtr(&message, 1).asBytes())});
    ++toSay;
  }

  bool allReturned() const {
    return std::all_of(std::begin(sent), std::end(sent), [](auto& one) { return one.empty(); });
  }

  FakeRam ram{64 * FakeRam::MIB};
  Words printed[PORTS];
  std::string typed[PORTS];  // that has come
  std::string names[PORTS];
  bool isKnown[PORTS] = {};
  bool isOpen[PORTS] = {};  // the host's side
  int openings[PORTS] = {};
  int toSay = 0;

 private:
  static constexpr uint32_t PLACE = 4096;

  FakeDriver& queue(uint16_t index) { return *queues[index]; }

  void offer(uint16_t index) {
    uint64_t address;
    if (spare.empty()) {
      address = ram.allocate(512);
    } else {
      address = spare.back();
      spare.pop_back();
    }
    offered[index][queue(index).add({virtio::testing::writable(address, 512)})] = address;
  }

  std::string takeBuffer(uint16_t index, FakeDriver::Used used) {
    auto found = offered[index].find(used.head);
    KJ_REQUIRE(found != offered[index].end(), "returned twice", index);
    uint64_t address = found->second;
    offered[index].erase(found);
    spare.push_back(address);
    auto bytes = ram.bytes(address, used.written);
    return std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  }

  template <typename Take>
  void drain(uint16_t index, Take&& take) {
    for (;;) {
      auto used = queue(index).takeUsed();
      if (used == nullptr) return;
      take(KJ_ASSERT_NONNULL(used));
    }
  }

  // As Linux does, which answers twice what it hears twice.
  void hear(const std::string& text) {
    ControlMessage head;
    KJ_REQUIRE(text.size() >= sizeof(head));
    memcpy(&head, text.data(), sizeof(head));
    uint32_t port = le32toh(head.port);
    KJ_REQUIRE(port < PORTS);
    switch (le16toh(head.event)) {
      case DEVICE_ADD:
        isKnown[port] = true;
        say(PORT_READY, 1, port);
        say(PORT_OPEN, 1, port);
        break;
      case PORT_NAME:
        names[port] = text.substr(sizeof(head));
        break;
      case PORT_OPEN:
        if (le16toh(head.value) != 0 && !isOpen[port]) ++openings[port];
        isOpen[port] = le16toh(head.value) != 0;
        break;
      default:
        break;
    }
  }

  std::mt19937 random;
  std::vector<kj::Own<FakeDriver>> queues;
  std::vector<uint64_t> places[PORTS];
  std::vector<uint64_t> spare;
  std::map<uint32_t, uint64_t> sent[PORTS];
  std::map<uint32_t, uint64_t> offered[2 + 2 * PORTS];
};

// What the host has of the ports, and the console's processes one after the other.
struct Stage {
  explicit Stage(uint32_t seed) : guest(seed) {}

  void launch() {
    capnp::MallocMessageBuilder message;
    auto ports = message.initRoot<ConsoleConfig>().initPorts(PORTS);
    auto set = [&](uint16_t port, ConsolePort::Backend backend, uint16_t index) {
      ports[port].setBackend(backend);
      ports[port].setFdIndex(index);
      ports[port].setName(kj::str("port", port));
    };
    set(SOCKET, ConsolePort::Backend::SOCKET, 0);
    set(FILE0, ConsolePort::Backend::FILE, 0);
    set(PTY, ConsolePort::Backend::PTY, 0);
    set(AGENT, ConsolePort::Backend::SOCKET, 1);
    ports[SOCKET].setFollowsTerminal(true);
    ports[AGENT].setPlain(true);
    ports[AGENT].setReplay(false);
    HandedFd fds[] = {{"out", 0, file},
                      {"pty", 0, terminal.master},
                      {"listen", 0, listener.fd},
                      {"listen", 1, agent.fd},
                      {"journal", 0, journal.writable}};
    bench = kj::heap<ProcessBench>(guest.ram, CONSOLE_PROFILE, "troupe-console", 2 + 2 * PORTS, fds,
                                   message.getRoot<capnp::AnyPointer>().asReader());
    bench->attach();
  }

  void activate(bool isResumed) {
    auto request = bench->device().activateRequest();
    request.setFeatures(FEATURES);
    request.setNumber(1);
    request.setResumed(isResumed);
    auto drivers = guest.drivers();
    auto layouts = request.initQueues(drivers.size());
    for (uint16_t i = 0; i < drivers.size(); i++) {
      auto layout = drivers[i]->layout();
      layouts[i].setIndex(i);
      layouts[i].setSize(layout.size);
      layouts[i].setDescriptorTable(layout.descriptorTable);
      layouts[i].setAvailableRing(layout.availableRing);
      layouts[i].setUsedRing(layout.usedRing);
    }
    bench->await(request.send().ignoreResult());
  }

  void kill() {
    bench->child().kill();
    bench->waitForExit();
    EXPECT_EQ(bench->host.resetsAsked, 0u);
    bench = nullptr;
  }

  void replace() {
    kill();
    launch();
    activate(/*isResumed=*/true);
  }

  void until(kj::Function<bool()> done) {
    bench->waitUntil([&] {
      guest.check();
      guest.kick(*bench);
      readTerminal();
      return ::testing::Test::HasFatalFailure() || done();
    });
  }

  // The guest's driver finds its ports, once.
  void begin() {
    launch();
    activate(/*isResumed=*/false);
    guest.say(DEVICE_READY, 1);
    until([&] {
      bool all = guest.toSay == 0;
      for (uint16_t port = 0; port < PORTS; port++)
        all &= guest.isKnown[port] && (port == AGENT || guest.isOpen[port]);
      return all;
    });
  }

  void readTerminal() {
    char piece[4096];
    ssize_t got;
    while ((got = read(terminal.slave, piece, sizeof(piece))) > 0)
      shown.append(piece, got);
  }

  bool isNear(uint16_t port, size_t delivered) {
    return guest.printed[port].all.size() < delivered + (256 << 10);
  }
  size_t fileSize() {
    struct stat info;
    KJ_SYSCALL(fstat(file, &info));
    return info.st_size;
  }

  // The memory that outlives the processes, as they see it.
  KeptPort& kept(uint16_t port) {
    if (mapping == nullptr) {
      mapping = mmap(nullptr, JOURNAL_BYTES, PROT_READ, MAP_SHARED, journal.writable, 0);
      KJ_ASSERT(mapping != MAP_FAILED);
    }
    auto* memory = static_cast<kj::byte*>(mapping) + virtio::QUEUE_JOURNALS_BYTES;
    return reinterpret_cast<KeptPort*>(memory)[port];
  }

  // Types as much as there is room for.
  void type(int fd, Words& words, std::deque<char>& pending) {
    while (pending.size() < 1024) {
      for (char c : words.next())
        pending.push_back(c);
    }
    send(fd, pending);
  }
  void send(int fd, std::deque<char>& pending) {
    std::string piece(pending.begin(), pending.end());
    ssize_t written = write(fd, piece.data(), piece.size());
    if (written > 0) pending.erase(pending.begin(), pending.begin() + written);
  }

  std::string readAll(int fd, size_t count) {
    std::string all;
    until([&] {
      char piece[65536];
      ssize_t got = read(fd, piece, std::min(sizeof(piece), count - all.size()));
      if (got > 0) all.append(piece, got);
      return got == 0 || all.size() == count;
    });
    return all;
  }

  CheckingDriver guest;
  kj::AutoCloseFd file = testing::memoryFile();
  Terminal terminal;
  Listener listener, agent;
  sandbox::SharedMemory journal = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
  kj::Own<ProcessBench> bench;
  std::string shown;  // on the terminal
  void* mapping = nullptr;
};

// How often a piece of `all` comes again in `got`; fails when a byte is missing, or more than a
// write's worth comes again.
int repetitions(const std::string& got, const std::string& all, const char* what) {
  int count = 0;
  size_t at = 0;  // of `all`
  for (size_t i = 0; i < got.size();) {
    size_t same = 0;
    while (i + same < got.size() && at + same < all.size() && got[i + same] == all[at + same])
      ++same;
    i += same;
    at += same;
    if (i == got.size()) break;
    // Not the next byte: then what a write had taken when its process died, once more; less of it
    // if its successor died over the same. Lines that are counted differ within that many bytes.
    constexpr size_t TELLING = 24;
    size_t from = at, longest = 0;
    for (size_t back = 1; back <= std::min<size_t>(at, 16384); ++back) {
      size_t length = 0, begin = at - back;
      while (length < back && i + length < got.size() && got[i + length] == all[begin + length])
        ++length;
      bool isWhole = length == std::min(back, got.size() - i);
      if (isWhole || length > longest) {
        longest = length;
        from = begin;
      }
      if (isWhole) break;
    }
    bool isWhole = longest == std::min(at - from, got.size() - i);
    if (longest == 0 || (longest < TELLING && !isWhole)) {
      ADD_FAILURE() << what << ": at byte " << i << " of " << got.size() << " comes \""
                    << got.substr(i, 30) << "\", which stands at " << all.find(got.substr(i, 30))
                    << " where " << at << " is expected";
      return count;
    }
    at = from;
    ++count;
  }
  EXPECT_EQ(at, all.size()) << what << " ends early";
  return count;
}

// `got` is made of pieces of `all`, in their order and none twice. How many bytes are missing.
size_t missing(const std::string& got, const std::string& all) {
  size_t at = 0;
  for (size_t i = 0; i < got.size();) {
    if (at < all.size() && got[i] == all[at]) {
      ++i;
      ++at;
      continue;
    }
    size_t next = std::string::npos;
    for (size_t length : {24, 12, 6}) {
      if (next == std::string::npos) next = all.find(got.substr(i, length), at);
    }
    if (next == std::string::npos) {
      ADD_FAILURE() << "at byte " << i << " of " << got.size() << " comes \"" << got.substr(i, 24)
                    << "\", which is not to come any more";
      break;
    }
    at = next;
  }
  return all.size() - got.size();
}

TEST(ConsoleKilled, OutputIsKeptAndInputComesOnceWhereverItIsKilled) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Stage stage(seed + 1);
  stage.begin();
  Words typed;
  std::deque<char> pending;
  using Clock = std::chrono::steady_clock;

  virtio::testing::Kills kills;
  while (!::testing::Test::HasFailure() && kills.takeOne()) {
    auto end = Clock::now() + std::chrono::microseconds(random() % 3000);
    stage.until([&] {
      stage.guest.print(SOCKET);
      // A reader that falls far behind would lose something, as it is meant to.
      if (stage.isNear(PTY, stage.shown.size())) stage.guest.print(PTY);
      if (stage.isNear(FILE0, stage.fileSize())) stage.guest.print(FILE0);
      stage.type(stage.terminal.slave, typed, pending);
      return Clock::now() >= end;
    });
    stage.guest.kick(*stage.bench);
    stage.replace();
  }
  // All that was printed arrives, and what is typed now.
  stage.until([&] { return stage.guest.allReturned(); });
  auto& guest = stage.guest;
  stage.until([&] {
    stage.send(stage.terminal.slave, pending);
    return pending.empty();
  });
  stage.until([&] {
    auto& got = guest.typed[PTY];
    auto tail = typed.all.substr(typed.all.size() - std::min<size_t>(typed.all.size(), 20));
    return got.size() >= tail.size() &&
           got.compare(got.size() - tail.size(), tail.size(), tail) == 0;
  });
  auto& lastWords = guest.printed[PTY].all;
  stage.until([&] {
    size_t size = std::min<size_t>(lastWords.size(), 40);
    return stage.shown.size() >= size &&
           stage.shown.compare(stage.shown.size() - size, size, lastWords, lastWords.size() - size,
                               size) == 0;
  });
  // A late reader of the socket gets the last MiB of what was said, each byte once; what a copy was
  // under way over when a process died is not kept.
  auto& said = guest.printed[SOCKET].all;
  size_t kept = std::min(said.size(), OutputLog::CAPACITY - OutputLog::MOST_AT_ONCE);
  auto reader = stage.listener.connectClient();
  auto replayed = stage.readAll(reader, kept);
  EXPECT_TRUE(said.size() >= replayed.size() && replayed.size() == kept);
  EXPECT_NE(said.find(replayed.substr(0, 200)), std::string::npos);
  std::string rest = stage.readAll(reader, said.size() - said.find(replayed.substr(0, 200)) - kept);
  EXPECT_TRUE(said.substr(said.size() - replayed.size() - rest.size()) == replayed + rest);

  int repeatedInFile = 0, repeatedOnTerminal = 0;
  stage.until([&] {
    auto content = testing::content(stage.file);
    auto& all = guest.printed[FILE0].all;
    size_t size = std::min<size_t>(all.size(), 40);
    return content.size() >= all.size() &&
           content.compare(content.size() - size, size, all, all.size() - size, size) == 0;
  });
  repeatedInFile = repetitions(testing::content(stage.file), guest.printed[FILE0].all, "the file");
  repeatedOnTerminal = repetitions(stage.shown, lastWords, "the terminal");
  size_t lost = missing(guest.typed[PTY], typed.all);
  EXPECT_LE(lost, kills.count() * InputQueue::CAPACITY);
  for (uint16_t port = 0; port < PORTS; port++)
    EXPECT_EQ(guest.names[port], kj::str("port", port).cStr());
  std::cout << kills.count() << " kills, " << said.size() << " bytes to the socket, each once; "
            << guest.printed[FILE0].all.size() << " to the file, " << repeatedInFile
            << " pieces twice; " << lastWords.size() << " to the terminal, " << repeatedOnTerminal
            << " pieces twice; " << typed.all.size() << " bytes typed, " << lost
            << " lost with a process that had just read them\n";
}

// Who is connected to a port that keeps nothing is told to the driver, whoever plays the console.
TEST(ConsoleKilled, ClientsSeeTheEndAndTheDriverThatTheyAreGone) {
  Stage stage(1);
  stage.begin();
  auto client = stage.agent.connectClient();
  stage.until([&] { return stage.guest.isOpen[AGENT]; });
  stage.replace();
  stage.until([&] { return !stage.guest.isOpen[AGENT]; });
  char byte;
  EXPECT_EQ(read(client, &byte, 1), 0);
  auto again = stage.agent.connectClient();
  stage.until([&] { return stage.guest.isOpen[AGENT]; });
  ASSERT_EQ(write(again, "x", 1), 1);
  stage.until([&] { return stage.guest.typed[AGENT] == "x"; });
}

// What was typed and not taken waits for the successor.
TEST(ConsoleKilled, InputThatTheGuestHasNotTakenIsStillThere) {
  Stage stage(1);
  stage.begin();
  stage.guest.say(PORT_OPEN, 0, PTY);  // nobody in the guest reads
  stage.until([&] { return stage.guest.toSay == 0; });
  ASSERT_EQ(write(stage.terminal.slave, "typed early", 11), 11);
  stage.until([&] { return *const_cast<volatile uint64_t*>(&stage.kept(PTY).input.end) == 11; });
  stage.replace();
  stage.guest.say(PORT_OPEN, 1, PTY);
  stage.until([&] { return stage.guest.typed[PTY] == "typed early"; });
}

// The size that a successor describes is that which the process before it was told.
TEST(ConsoleKilled, SizeIsThatWhichWasToldLast) {
  Stage stage(1);
  auto sizeOf = [&] {
    auto info = stage.bench->describe();
    uint16_t size[2];
    memcpy(size, info.getInfo().getConfig().begin(), sizeof(size));
    return std::make_pair(le16toh(size[0]), le16toh(size[1]));
  };
  stage.begin();
  EXPECT_EQ(sizeOf(), std::make_pair(uint16_t(0), uint16_t(0)));
  stage.bench->consoleSize(132, 50);
  stage.replace();
  EXPECT_EQ(sizeOf(), std::make_pair(uint16_t(132), uint16_t(50)));
}

}  // namespace
}  // namespace troupe::console
