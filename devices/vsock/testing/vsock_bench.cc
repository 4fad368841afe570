#include "devices/vsock/testing/vsock_bench.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/vsock/vsock.capnp.h"
#include "devices/vsock/vsock_engine.h"
#include "devices/vsock/vsock_profile.h"
#include "protos/fd_handle.h"

namespace troupe::vsock::testing {

namespace {

constexpr uint32_t TRANSMIT_BYTES = 128 << 10;
constexpr uint16_t RING = 256;
constexpr uint64_t JOURNAL_BYTES = 16 << 20;

kj::String freshPath() {
  static int next = 0;
  // Not below TEST_TMPDIR, whose path is longer than a socket's may be.
  return kj::str("/tmp/troupe-vsock-test-", getpid(), "-", next++);
}

sockaddr_un addressOf(kj::StringPtr path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.begin(), path.size());
  return address;
}

}  // namespace

Pair socketPair() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

Listening::Listening() : path(freshPath()) {
  int fd;
  KJ_SYSCALL(fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  socket = kj::AutoCloseFd(fd);
  auto address = addressOf(path);
  unlink(path.cStr());  // left by a test that was killed and had this pid
  KJ_SYSCALL(bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)), path);
  KJ_SYSCALL(listen(socket, 4096));
}

Listening::~Listening() noexcept {
  unlink(path.cStr());
}

kj::AutoCloseFd Listening::connect() const {
  int fd;
  KJ_SYSCALL(fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  kj::AutoCloseFd client(fd);
  auto address = addressOf(path);
  KJ_SYSCALL(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  return client;
}

kj::Promise<void> TestConnector::connect(ConnectContext context) {
  questions++;
  lastCid = context.getParams().getCid();
  if (silent) return kj::NEVER_DONE;
  KJ_REQUIRE(!fails, "this connector fails");
  if (context.getParams().getPort() >= 1000) return kj::READY_NOW;
  auto pair = socketPair();
  if (keepsWhatItGives) {
    int kept;
    KJ_SYSCALL(kept = fcntl(pair.theirs, F_DUPFD_CLOEXEC, 0));
    given.add(kj::AutoCloseFd(kept));
  }
  ends.add(kj::mv(pair.ours));
  context.getResults().setSocket(kj::heap<FdHandle>(kj::mv(pair.theirs)));
  return kj::READY_NOW;
}

VsockBench::VsockBench(Where where, uint64_t ramBytes, kj::StringPtr executable)
    : ram(ramBytes), own(nullptr), executable(kj::heapString(executable)) {
  auto server = kj::heap<TestConnector>();
  connector = server.get();
  own = kj::mv(server);
  transmitBuffer = ram.allocate(TRANSMIT_BYTES);
  if (where == Where::IN_JAIL) {
    journal = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
    launch();
    return;
  }
  deviceBench = kj::heap<virtio::testing::DeviceBench>(ram, [this](kj::AsyncIoContext& io) {
    auto listeners = kj::heapArrayBuilder<VsockEngine::Listener>(2);
    listeners.add(VsockEngine::Listener{hybrid.fd(), nullptr});
    listeners.add(VsockEngine::Listener{forwarded.fd(), FORWARDED_PORT});
    return kj::heap<VsockEngine>(io.unixEventPort, GUEST_CID, listeners.finish(), own);
  });
  broker = deviceBench.get();
}

void VsockBench::launch() {
  auto pair = socketPair();
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VsockConfig>();
  config.setGuestCid(GUEST_CID);
  config.initForwards(1).set(0, FORWARDED_PORT);
  virtio::testing::HandedFd fds[] = {{"connector", 0, pair.theirs},
                                     {"listen", 0, hybrid.fd()},
                                     {"forward", 0, forwarded.fd()},
                                     {"journal", 0, journal.writable}};
  processBench = kj::heap<virtio::testing::ProcessBench>(
      ram, VSOCK_PROFILE, "troupe-vsock", QUEUES, fds,
      message.getRoot<capnp::AnyPointer>().asReader(), executable);
  connectorStream = processBench->io.lowLevelProvider->wrapUnixSocketFd(
      kj::mv(pair.ours), kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK);
  connectorRpc = kj::heap<capnp::TwoPartyClient>(*connectorStream, 1, Connector::Client(own),
                                                 capnp::rpc::twoparty::Side::SERVER);
  process = *processBench;
  broker = processBench.get();
}

void VsockBench::replace() {
  processBench->child().kill();
  processBench->waitForExit();
  EXPECT_EQ(processBench->host.resetsAsked, 0u);
  relaunch();
  activate(/*isResumed=*/true);
}

void VsockBench::takeOver() {
  relaunch();
  auto request = broker->activateRequest(FEATURES, {receiveDriver, transmitDriver, eventDriver});
  request.setNumber(activations);
  request.setResumed(true);
  request.setOwnFault(true);
  activation = request.send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
}

void VsockBench::relaunch() {
  activation = nullptr;
  connectorRpc = nullptr;
  connectorStream = nullptr;
  process = nullptr;
  processBench = nullptr;
  launch();
  broker->attach();
}

void VsockBench::activate(bool isResumed) {
  auto request = broker->activateRequest(FEATURES, {receiveDriver, transmitDriver, eventDriver});
  if (!isResumed) ++activations;
  request.setNumber(activations);
  request.setResumed(isResumed);
  broker->await(request.send().ignoreResult());
}

VsockBench::~VsockBench() noexcept {
  activation = nullptr;
  connectorRpc = nullptr;
  connectorStream = nullptr;
  own = nullptr;
  deviceBench = nullptr;
  processBench = nullptr;
}

void VsockBench::start(uint16_t buffers, uint32_t bufferBytes) {
  broker->attach();
  receiveDriver = kj::heap<FakeDriver>(ram, RING);
  transmitDriver = kj::heap<FakeDriver>(ram, RING);
  eventDriver = kj::heap<FakeDriver>(ram, uint16_t(8));
  offer(buffers, bufferBytes);
  activate(/*isResumed=*/false);
}

void VsockBench::offer(uint16_t buffers, uint32_t bufferBytes) {
  for (uint16_t i = 0; i < buffers; i++) {
    auto buffer = virtio::testing::writable(ram.allocate(bufferBytes), bufferBytes);
    offered[receiveDriver->add({buffer})] = buffer;
  }
  if (receiveDriver->shouldKick()) broker->kick(RECEIVE_QUEUE);
}

void VsockBench::restart(uint16_t buffers) {
  broker->reset();
  offered.clear();
  receiveDriver = kj::heap<FakeDriver>(ram, RING);
  transmitDriver = kj::heap<FakeDriver>(ram, RING);
  eventDriver = kj::heap<FakeDriver>(ram, uint16_t(8));
  offer(buffers, 4096);
  activate(/*isResumed=*/false);
}

PacketHeader VsockBench::header(uint16_t op, uint32_t port, uint32_t hostPort, uint32_t length) {
  PacketHeader header = {};
  header.sourceCid = GUEST_CID;
  header.destinationCid = HOST_CID;
  header.sourcePort = port;
  header.destinationPort = hostPort;
  header.length = length;
  header.type = TYPE_STREAM;
  header.op = op;
  header.bufferSize = CREDIT;
  return header;
}

void VsockBench::send(const PacketHeader& header, const std::string& payload) {
  KJ_REQUIRE(sizeof(header) + payload.size() <= TRANSMIT_BYTES);
  auto to = ram.bytes(transmitBuffer, TRANSMIT_BYTES);
  memcpy(to.begin(), &header, sizeof(header));
  memcpy(to.begin() + sizeof(header), payload.data(), payload.size());
  if (payload.empty()) {
    transmitDriver->add({virtio::testing::readable(transmitBuffer, sizeof(header))});
  } else {
    transmitDriver->add(
        {virtio::testing::readable(transmitBuffer, sizeof(header)),
         virtio::testing::readable(transmitBuffer + sizeof(header), uint32_t(payload.size()))});
  }
  EXPECT_EQ(broker->waitForUsed(TRANSMIT_QUEUE, *transmitDriver).written, 0);
}

void VsockBench::sendAll(kj::ArrayPtr<const PacketHeader> headers,
                         kj::Function<void(const Packet&)> received) {
  constexpr size_t BATCH = 128;
  for (size_t at = 0; at < headers.size(); at += BATCH) {
    size_t count = kj::min(BATCH, headers.size() - at);
    for (size_t i = 0; i < count; i++) {
      uint64_t address = transmitBuffer + i * 64;
      memcpy(ram.bytes(address, 64).begin(), &headers[at + i], sizeof(PacketHeader));
      transmitDriver->add({virtio::testing::readable(address, sizeof(PacketHeader))});
    }
    if (transmitDriver->shouldKick()) broker->kick(TRANSMIT_QUEUE);
    size_t done = 0;
    broker->waitUntil([&] {
      for (;;) {
        KJ_IF_MAYBE (packet, receiveIfAny()) {
          received(*packet);
        } else {
          break;
        }
      }
      while (transmitDriver->takeUsed() != nullptr)
        done++;
      return done == count;
    });
  }
}

void VsockBench::drain() {
  do {
    while (receiveIfAny() != nullptr) {
    }
    broker->settle();
  } while (receiveIfAny() != nullptr);
}

kj::Maybe<Packet> VsockBench::receiveIfAny() {
  KJ_IF_MAYBE (used, receiveDriver->takeUsed()) {
    auto buffer = offered.at(used->head);
    offered.erase(used->head);
    auto bytes = ram.bytes(buffer.address, buffer.length);
    Packet packet;
    KJ_REQUIRE(used->written >= sizeof(packet.header), used->written);
    memcpy(&packet.header, bytes.begin(), sizeof(packet.header));
    if (looksAtEveryByte) look(bytes, used->written, packet);
    offered[receiveDriver->add({buffer})] = buffer;
    if (receiveDriver->shouldKick()) broker->kick(RECEIVE_QUEUE);
    return packet;
  }
  return nullptr;
}

void VsockBench::look(kj::ArrayPtr<kj::byte> bytes, uint32_t written, Packet& packet) {
  packet.payload.assign(reinterpret_cast<char*>(bytes.begin()) + sizeof(packet.header),
                        written - sizeof(packet.header));
  EXPECT_EQ(packet.header.length, packet.payload.size());
  EXPECT_EQ(packet.header.destinationCid, GUEST_CID);
  // What was not used is as it was: §2.7.8.2.
  for (size_t i = written; i < bytes.size(); i++)
    KJ_REQUIRE(bytes[i] == FakeRam::POISON, "a byte behind the used length was written", i);
  memset(bytes.begin(), FakeRam::POISON, bytes.size());
}

Packet VsockBench::receive() {
  Packet packet;
  broker->waitUntil([&] {
    KJ_IF_MAYBE (next, receiveIfAny()) {
      packet = kj::mv(*next);
      return true;
    }
    return false;
  });
  return packet;
}

Packet VsockBench::expect(uint16_t op) {
  auto packet = receive();
  EXPECT_EQ(packet.header.op, op);
  return packet;
}

void VsockBench::expectNothing() {
  broker->settle();
  KJ_IF_MAYBE (packet, receiveIfAny()) {
    ADD_FAILURE() << "a packet with op " << packet->header.op;
  }
}

kj::AutoCloseFd VsockBench::connectOut(uint32_t port, uint32_t hostPort) {
  size_t before = connector->ends.size();
  send(OP_REQUEST, port, hostPort);
  auto answer = expect(OP_RESPONSE);
  EXPECT_EQ(answer.header.sourcePort, hostPort);
  EXPECT_EQ(answer.header.destinationPort, port);
  KJ_REQUIRE(connector->ends.size() > before);
  return kj::mv(connector->ends.back());
}

uint32_t VsockBench::acceptIn(uint32_t bufferSize) {
  auto request = expect(OP_REQUEST).header;
  auto answer = header(OP_RESPONSE, request.destinationPort, request.sourcePort);
  answer.bufferSize = bufferSize;
  send(answer);
  return request.sourcePort;
}

std::string VsockBench::read(int fd, size_t count) {
  std::string all;
  broker->waitUntil([&] {
    char part[65536];
    ssize_t got = ::read(fd, part, kj::min(sizeof(part), count - all.size()));
    if (got > 0) all.append(part, size_t(got));
    return got == 0 || all.size() == count;
  });
  return all;
}

bool VsockBench::atEnd(int fd) {
  broker->waitUntil([&] {
    char byte;
    ssize_t got = ::read(fd, &byte, 1);
    return got == 0 || (got < 0 && errno != EAGAIN);
  });
  return true;
}

void VsockBench::write(int fd, const std::string& bytes) {
  size_t done = 0;
  broker->waitUntil([&] {
    ssize_t written = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (written > 0) done += size_t(written);
    return done == bytes.size();
  });
}

void VsockBench::spoilConnector(kj::ArrayPtr<const kj::byte> bytes) {
  // The device may hang up before it has read everything, and then it has read enough.
  kj::runCatchingExceptions(
      [&] { broker->await(connectorStream->write(bytes.begin(), bytes.size())); });
  connectorRpc = nullptr;
  connectorStream = nullptr;
}

std::string noise(size_t size) {
  std::string bytes(size, '\0');
  uint64_t state = 88172645463325252ull;
  for (char& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = char(state);
  }
  return bytes;
}

}  // namespace troupe::vsock::testing
