// passt of the distribution in the jail of its profile, as `--net user` starts it.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "sandbox/attest.h"
#include "sandbox/launcher.h"
#include "vmm/net/net_start.h"
#include "vmm/passt/passt_profile.h"

namespace troupe {
namespace {

using sandbox::Attestation;
using sandbox::HandedFd;

struct Bench {
  explicit Bench(sandbox::LaunchFaults faults = {})
      : io(kj::setupAsyncIo()), launcher(io.unixEventPort, sandbox::Jail::ON, faults) {}

  // Our end of its connection is `sockets.ours`.
  void start(kj::Array<kj::String> arguments, kj::Maybe<int> program = nullptr,
             const sandbox::Profile& profile = PASST_PROFILE) {
    int pipe[2];
    KJ_SYSCALL(pipe2(pipe, O_CLOEXEC | O_NONBLOCK));
    log = kj::AutoCloseFd(pipe[0]);
    kj::AutoCloseFd logEnd(pipe[1]), null = openNull(), passt = openPasst("test");
    child =
        launcher.launch(profile, program.orDefault(passt), "passt", "passt0",
                        kj::arr(HandedFd{"null", 0, null}, HandedFd{"null", 1, null},
                                HandedFd{"log", 0, logEnd}, HandedFd{"frames", 0, sockets.theirs}),
                        nullptr, nullptr, arguments);
    sockets.theirs = nullptr;
    child->started().wait(io.waitScope);
  }

  // Looks until nothing differs, for a while.
  Attestation attested() {
    for (int tries = 0;; tries++) {
      sandbox::AttestOptions options;
      options.traced = child->isTraced();
      options.observe = true;
      auto seen = sandbox::attest(PASST_PROFILE, child->pid(), options);
      if (seen.differences.size() == 0 || tries == 1000) return seen;
      io.provider->getTimer().afterDelay(10 * kj::MILLISECONDS).wait(io.waitScope);
    }
  }

  std::string words() {
    char text[4096];
    ssize_t size = read(log, text, sizeof(text));
    return std::string(text, size < 0 ? 0 : size);
  }

  kj::AsyncIoContext io;
  sandbox::Launcher launcher;
  SocketPair sockets = makeFrameSockets();
  kj::AutoCloseFd log;
  kj::Own<sandbox::Child> child;
};

NetPlan userPlan() {
  NetPlan plan = {};
  plan.backend = NetPlan::Backend::USER;
  return plan;
}

constexpr kj::byte GUEST[6] = {0x02, 0, 0, 0, 0, 1};

void send(int socket, kj::ArrayPtr<const kj::byte> frame) {
  uint32_t length = htonl(frame.size());
  KJ_ASSERT(write(socket, &length, 4) == 4);
  KJ_ASSERT(write(socket, frame.begin(), frame.size()) == ssize_t(frame.size()));
}

bool readWhole(int socket, void* data, size_t size) {
  auto at = static_cast<char*>(data);
  while (size > 0) {
    pollfd ready = {socket, POLLIN, 0};
    if (poll(&ready, 1, 10000) <= 0) return false;
    ssize_t n = read(socket, at, size);
    if (n <= 0) return false;
    at += n;
    size -= n;
  }
  return true;
}

// The next frame of EtherType `type` for the guest.
kj::Maybe<kj::Array<kj::byte>> receive(int socket, uint16_t type) {
  for (int others = 0; others < 100; others++) {
    uint32_t length;
    if (!readWhole(socket, &length, 4) || ntohl(length) > 65536) return nullptr;
    auto frame = kj::heapArray<kj::byte>(ntohl(length));
    if (!readWhole(socket, frame.begin(), frame.size())) return nullptr;
    if (frame.size() >= 14 && (frame[12] << 8 | frame[13]) == type) return kj::mv(frame);
  }
  return nullptr;
}

// Somebody's address, which passt answers for.
kj::Array<kj::byte> arpRequest() {
  auto frame = kj::heapArray<kj::byte>(42);
  memset(frame.begin(), 0, frame.size());
  memset(frame.begin(), 0xff, 6);
  memcpy(&frame[6], GUEST, 6);
  const kj::byte head[] = {0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1};
  memcpy(&frame[12], head, sizeof(head));
  memcpy(&frame[22], GUEST, 6);
  const kj::byte sender[] = {198, 51, 100, 1}, target[] = {198, 51, 100, 2};
  memcpy(&frame[28], sender, 4);
  memcpy(&frame[38], target, 4);
  return frame;
}

std::string textOf(const Attestation& attestation) {
  return kj::strArray(attestation.differences, "\n").cStr();
}

TEST(PasstJail, IsAsItsProfileSaysOncePasstHasClosedItsOwn) {
  Bench bench;
  bench.start(passtArguments(userPlan()));
  auto seen = bench.attested();
  EXPECT_EQ("", textOf(seen)) << bench.words();
  bool host = false;
  for (auto& row : seen.observations)
    host = host || (row.layer == "net namespace" && strstr(row.found.cStr(), "the host's"));
  EXPECT_TRUE(host) << "it is the one actor with the host's network";
}

TEST(PasstJail, ServesFramesFromInside) {
  Bench bench;
  bench.start(passtArguments(userPlan()));
  send(bench.sockets.ours, arpRequest());
  auto reply = receive(bench.sockets.ours, 0x0806);
  ASSERT_TRUE(reply != nullptr) << bench.words();
  auto& frame = KJ_ASSERT_NONNULL(reply);
  EXPECT_EQ(0, memcmp(frame.begin(), GUEST, 6));
  EXPECT_EQ(frame[21], 2) << "an ARP reply";
}

// The default gateway, as the kernel writes it: "eth0 00000000 010200C0 …".
in_addr defaultGateway() {
  in_addr gateway = {};
  std::ifstream routes("/proc/net/route");
  std::string name, destination, by;
  for (std::string line; std::getline(routes, line);) {
    std::istringstream words(line);
    words >> name >> destination >> by;
    if (destination != "00000000") continue;
    gateway.s_addr = static_cast<in_addr_t>(strtoul(by.c_str(), nullptr, 16));
    break;
  }
  return gateway;
}

// RFC 1071, over 16-bit words with the highest byte first.
uint16_t checksum(kj::ArrayPtr<const kj::byte> bytes, uint32_t sum = 0) {
  for (size_t i = 0; i < bytes.size(); i++)
    sum += i % 2 == 0 ? bytes[i] << 8 : bytes[i];
  while (sum >> 16 != 0)
    sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

// The first segment of a connection from 198.51.100.2:40000.
kj::Array<kj::byte> synTo(in_addr target, uint16_t port) {
  auto frame = kj::heapArray<kj::byte>(14 + 20 + 20);
  memset(frame.begin(), 0, frame.size());
  memset(frame.begin(), 0x02, 6);  // passt takes what comes
  memcpy(&frame[6], GUEST, 6);
  frame[12] = 0x08;
  kj::byte* ip = &frame[14];
  const kj::byte head[] = {0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, IPPROTO_TCP};
  const kj::byte source[] = {198, 51, 100, 2};
  memcpy(ip, head, sizeof(head));
  memcpy(ip + 12, source, 4);
  memcpy(ip + 16, &target, 4);
  uint16_t sum = checksum(kj::arrayPtr(ip, 20));
  ip[10] = sum >> 8, ip[11] = sum & 0xff;
  kj::byte* tcp = ip + 20;
  tcp[0] = 40000 >> 8, tcp[1] = 40000 & 0xff;
  tcp[2] = port >> 8, tcp[3] = port & 0xff;
  tcp[7] = 1;        // the sequence number
  tcp[12] = 5 << 4;  // words of its header
  tcp[13] = 0x02;    // SYN
  tcp[14] = tcp[15] = 0xff;
  sum = checksum(kj::arrayPtr(ip + 12, 28), IPPROTO_TCP + 20);
  tcp[16] = sum >> 8, tcp[17] = sum & 0xff;
  return frame;
}

TEST(PasstJail, AConnectionOfTheGuestsReachesAServerOnTheHost) {
  int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(server, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(server, 1), 0);
  ASSERT_EQ(getsockname(server, reinterpret_cast<sockaddr*>(&address), &size), 0);
  Bench bench;
  bench.start(passtArguments(userPlan()));
  send(bench.sockets.ours, arpRequest());
  ASSERT_TRUE(receive(bench.sockets.ours, 0x0806) != nullptr) << bench.words();
  // Sent again until it is answered, as a guest does: passt may drop what comes while it is busy.
  pollfd waiting = {server, POLLIN, 0};
  for (int i = 0; i < 10 && waiting.revents == 0; i++) {
    send(bench.sockets.ours, synTo(defaultGateway(), ntohs(address.sin_port)));
    ASSERT_GE(poll(&waiting, 1, 1000), 0);
  }
  EXPECT_EQ(POLLIN, waiting.revents) << bench.words();
  auto reply = receive(bench.sockets.ours, 0x0800);
  ASSERT_TRUE(reply != nullptr) << bench.words();
  auto& frame = KJ_ASSERT_NONNULL(reply);
  ASSERT_GE(frame.size(), 54u);
  EXPECT_EQ(0x12, frame[47]) << "SYN and ACK";
  close(server);
}

TEST(PasstJail, EndsByItselfWhenTheDeviceHasGone) {
  Bench bench;
  bench.start(passtArguments(userPlan()));
  send(bench.sockets.ours, arpRequest());
  ASSERT_TRUE(receive(bench.sockets.ours, 0x0806) != nullptr);
  bench.sockets.ours = nullptr;
  int status = bench.child->onExit().wait(bench.io.waitScope);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << bench.words();
}

TEST(PasstJail, APortThatIsTakenEndsItWithWords) {
  int taken = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(taken, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(taken, 1), 0);
  ASSERT_EQ(getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size), 0);
  auto plan = userPlan();
  plan.forwards = kj::heapArray<ForwardPlan>(1);
  plan.forwards[0] = {false, kj::str("127.0.0.1"), ntohs(address.sin_port), 80};
  Bench bench;
  bench.start(passtArguments(plan));
  int status = bench.child->onExit().wait(bench.io.waitScope);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
  EXPECT_NE(bench.words().find("Failed to bind"), std::string::npos) << bench.words();
  close(taken);
}

TEST(PasstJail, AFileThatTheHostLacksIsNamed) {
  const sandbox::ProfileRootEntry root[] = {
      {sandbox::ProfileRootEntry::FILE, "/nowhere/optional.so", nullptr, true},
      {sandbox::ProfileRootEntry::FILE, "/nowhere/needed.so", nullptr, false}};
  auto profile = PASST_PROFILE;
  profile.layers.helper = {true, root, 2};
  Bench bench;
  auto failure =
      kj::runCatchingExceptions([&] { bench.start(passtArguments(userPlan()), nullptr, profile); });
  std::string text = KJ_ASSERT_NONNULL(failure).getDescription().cStr();
  EXPECT_EQ(text.find("TRP-jail-013: passt0 needs the file /nowhere/needed.so"), 0u) << text;
}

// Seen from outside, a program that does not close a jail of its own is not what was asked for.
TEST(PasstJail, AHelperWithoutItsOwnSandboxIsFoundOut) {
  Bench bench;
  kj::AutoCloseFd loader(open("/lib64/ld-linux-x86-64.so.2", O_PATH | O_CLOEXEC));
  // The loader says what it is good for, and ends; until then it has our filter alone.
  auto words = kj::heapArray<kj::String>(1);
  words[0] = kj::str("--help");
  bench.start(kj::mv(words), loader.get());
  sandbox::AttestOptions options;
  options.traced = bench.child->isTraced();
  auto seen = sandbox::attest(PASST_PROFILE, bench.child->pid(), options);
  EXPECT_NE("", textOf(seen));
}

}  // namespace
}  // namespace troupe
