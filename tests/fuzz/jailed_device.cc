#include "tests/fuzz/jailed_device.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "devices/balloon/balloon.capnp.h"
#include "devices/balloon/balloon_profile.h"
#include "devices/balloon/fuzz_request.h"
#include "devices/balloon/wire.h"
#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/fuzz_request.h"
#include "devices/console/console.capnp.h"
#include "devices/console/console_profile.h"
#include "devices/console/fuzz_request.h"
#include "devices/console/wire.h"
#include "devices/net/fuzz_request.h"
#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/net/testing/net_driver.h"
#include "devices/rng/fuzz_request.h"
#include "devices/rng/rng_profile.h"
#include "devices/virtio/wire.h"
#include "devices/vsock/fuzz_request.h"
#include "devices/vsock/vsock.capnp.h"
#include "devices/vsock/vsock_profile.h"

namespace troupe::fuzz {
namespace {

using virtio::testing::FakeRam;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint64_t RING_FEATURES =
    virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;

kj::ArrayPtr<const HandedFd> arrayOf(const JailedDevice::Fds& fds) {
  return kj::arrayPtr(fds.data(), fds.size());
}

Op makeOp(uint8_t a, uint16_t b, uint32_t c) {
  return Op{uint8_t(OpKind::REQUEST), a, b, c, 0};
}

class JailedRng final: public JailedDevice {
 public:
  std::vector<uint16_t> queueSizes() override { return {8}; }
  uint64_t features() override { return RING_FEATURES; }
  kj::Own<ProcessBench> start(FakeRam& ram, Fds fds) override {
    return kj::heap<ProcessBench>(ram, RNG_PROFILE, "troupe-rng", 1, arrayOf(fds));
  }
  void request(const Op& op, RequestTemplate& request) override { rng::chooseRequest(op, request); }
  Op goodRequest() override { return makeOp(0, 0, 64); }
};

// Guest RAM is given to it to read alone, as by the broker.
class JailedBalloon final: public JailedDevice {
 public:
  std::vector<uint16_t> queueSizes() override { return {128, 128, 128, 128}; }
  uint64_t features() override {
    return virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | balloon::F_FREE_PAGE_HINT |
           balloon::F_PAGE_POISON | balloon::F_STATS_VQ;
  }
  kj::Own<ProcessBench> start(FakeRam& ram, Fds fds) override {
    capnp::MallocMessageBuilder message;
    message.initRoot<BalloonConfig>().setStatistics(true);
    return kj::heap<ProcessBench>(ram, BALLOON_PROFILE, "troupe-balloon", 5, arrayOf(fds),
                                  message.getRoot<capnp::AnyPointer>().asReader());
  }
  void request(const Op& op, RequestTemplate& request) override {
    if (op.d == IS_GOOD) {
      // Pages that are no RAM: others may hold the driver's rings.
      request.header.assign(20 * sizeof(uint32_t), 0xff);
      return;
    }
    balloon::chooseRequest(op, request);
  }
  Op goodRequest() override { return Op{uint8_t(OpKind::REQUEST), 0, 0, 0, IS_GOOD}; }
  bool readsOnly() override { return true; }

 private:
  static constexpr uint64_t IS_GOOD = 0x900dull << 48;
};

// Three ports whose output goes to /dev/null; nobody types.
class JailedConsole final: public JailedDevice {
 public:
  JailedConsole() {
    int fd;
    KJ_SYSCALL(fd = open("/dev/null", O_WRONLY | O_CLOEXEC));
    out = kj::AutoCloseFd(fd);
  }
  std::vector<uint16_t> queueSizes() override { return std::vector<uint16_t>(8, 64); }
  uint64_t features() override {
    return RING_FEATURES | console::F_SIZE | console::F_MULTIPORT | console::F_EMERG_WRITE;
  }
  kj::Own<ProcessBench> start(FakeRam& ram, Fds fds) override {
    capnp::MallocMessageBuilder message;
    auto ports = message.initRoot<ConsoleConfig>().initPorts(3);
    for (uint16_t i = 0; i < ports.size(); i++) {
      ports[i].setBackend(ConsolePort::Backend::FILE);
      ports[i].setFdIndex(i);
    }
    ports[1].setPlain(true);
    ports[1].setName("org.example.agent");
    fds.insert(fds.end(), {{"out", 0, out}, {"out", 1, out}, {"out", 2, out}});
    return kj::heap<ProcessBench>(ram, CONSOLE_PROFILE, "troupe-console", 8, arrayOf(fds),
                                  message.getRoot<capnp::AnyPointer>().asReader());
  }
  void request(const Op& op, RequestTemplate& request) override {
    console::chooseRequest(op, request);
  }
  Op goodRequest() override { return makeOp(1, 0, 20); }
  uint16_t goodQueue() override { return console::TRANSMIT_QUEUE; }
  bool looksAtOnce(uint16_t queue) override { return queue == console::TRANSMIT_QUEUE; }

 private:
  kj::AutoCloseFd out;
};

// On a socket whose other end sends back what it gets.
class JailedNet final: public JailedDevice {
 public:
  ~JailedNet() noexcept(false) { endHost(); }
  std::vector<uint16_t> queueSizes() override { return {1024, 1024, 64}; }
  uint64_t features() override {
    return RING_FEATURES | net::testing::FEATURES | net::testing::OFFLOADS;
  }
  kj::Own<ProcessBench> start(FakeRam& ram, Fds fds) override {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<NetConfig>();
    config.setMac(kj::ArrayPtr<const kj::byte>(net::FUZZED_ADDRESS.bytes));
    config.setBackend(NetConfig::Backend::PACKETS);
    config.setSocketHasHeaders(true);
    config.setSpoofFilter(true);
    auto offloads = config.initOffloads();
    offloads.setChecksum(true);
    offloads.setTso4(true);
    offloads.setTso6(true);
    offloads.setEcn(true);
    endHost();
    cable = kj::heap<net::testing::Cable>(SOCK_SEQPACKET);
    // Signals are for the loop that watches the jail.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    host = std::thread([socket = cable->peer.fd()] { sendBack(socket); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    fds.insert(fds.end(), {{"socket", 0, cable->device}});
    return kj::heap<ProcessBench>(ram, NET_PROFILE, "troupe-net", 3, arrayOf(fds),
                                  message.getRoot<capnp::AnyPointer>().asReader());
  }
  void request(const Op& op, RequestTemplate& request) override { net::chooseRequest(op, request); }
  Op goodRequest() override { return makeOp(0, 0, 100); }
  uint16_t goodQueue() override { return 1; }
  bool looksAtOnce(uint16_t queue) override { return queue != 0; }

 private:
  void endHost() {
    if (cable.get() == nullptr) return;
    shutdown(cable->peer.fd(), SHUT_RDWR);
    host.join();
    cable = nullptr;
  }
  static void sendBack(int socket) {
    std::vector<kj::byte> frame(128 << 10);
    for (;;) {
      pollfd fd{socket, POLLIN, 0};
      poll(&fd, 1, -1);
      ssize_t size = recv(socket, frame.data(), frame.size(), MSG_DONTWAIT);
      if (size == 0) return;
      if (size > 0) send(socket, frame.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
  }

  kj::Own<net::testing::Cable> cable;
  std::thread host;
};

class JailedBlk final: public JailedDevice {
 public:
  JailedBlk() {
    int fd;
    KJ_SYSCALL(fd = memfd_create("disk", MFD_CLOEXEC));
    disk = kj::AutoCloseFd(fd);
    KJ_SYSCALL(ftruncate(disk, blk::FUZZED_DISK_BYTES));
  }
  std::vector<uint16_t> queueSizes() override { return {256, 256}; }
  uint64_t features() override { return RING_FEATURES | virtio::BLK_F_FLUSH; }
  kj::Own<ProcessBench> start(FakeRam& ram, Fds fds) override {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<BlkConfig>();
    config.setId("fuzz");
    config.setQueues(2);
    fds.insert(fds.end(), {{"disk", 0, disk}});
    return kj::heap<ProcessBench>(ram, BLK_PROFILE, "troupe-blk", 2, arrayOf(fds),
                                  message.getRoot<capnp::AnyPointer>().asReader());
  }
  void request(const Op& op, RequestTemplate& request) override { blk::chooseRequest(op, request); }
  Op goodRequest() override { return makeOp(0, 0x10, 1); }

 private:
  kj::AutoCloseFd disk;
};

// Its connector never answers, and no client connects.
class JailedVsock final: public JailedDevice {
 public:
  JailedVsock() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    connector = kj::AutoCloseFd(fds[0]);
    silent = kj::AutoCloseFd(fds[1]);
  }
  std::vector<uint16_t> queueSizes() override { return {256, 256, 8}; }
  uint64_t features() override { return RING_FEATURES | vsock::F_STREAM; }
  kj::Own<ProcessBench> start(FakeRam& ram, Fds fds) override {
    capnp::MallocMessageBuilder message;
    message.initRoot<VsockConfig>().setGuestCid(vsock::FUZZED_CID);
    fds.insert(fds.end(), {{"connector", 0, connector}});
    return kj::heap<ProcessBench>(ram, VSOCK_PROFILE, "troupe-vsock", vsock::QUEUES, arrayOf(fds),
                                  message.getRoot<capnp::AnyPointer>().asReader());
  }
  void request(const Op& op, RequestTemplate& request) override {
    vsock::chooseRequest(op, request);
  }
  // A stream that nobody has is reset: taken, and nothing comes back.
  Op goodRequest() override { return makeOp(0, 0x1000, 0); }
  uint16_t goodQueue() override { return vsock::TRANSMIT_QUEUE; }
  bool looksAtOnce(uint16_t queue) override { return queue == vsock::TRANSMIT_QUEUE; }

 private:
  kj::AutoCloseFd connector;
  kj::AutoCloseFd silent;
};

}  // namespace

kj::Own<JailedDevice> jailedDevice(kj::StringPtr name) {
  if (name == "balloon") return kj::heap<JailedBalloon>();
  if (name == "rng") return kj::heap<JailedRng>();
  if (name == "console") return kj::heap<JailedConsole>();
  if (name == "net") return kj::heap<JailedNet>();
  if (name == "blk") return kj::heap<JailedBlk>();
  if (name == "vsock") return kj::heap<JailedVsock>();
  return {};
}

}  // namespace troupe::fuzz
