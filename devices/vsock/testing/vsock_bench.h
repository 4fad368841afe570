#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/io.h>

#include <map>
#include <string>

#include "devices/virtio/testing/device_bench.h"
#include "devices/virtio/testing/process_bench.h"
#include "devices/vsock/wire.h"
#include "protos/connector.capnp.h"
#include "sandbox/shared_memory.h"

namespace troupe::vsock::testing {

using virtio::testing::FakeBroker;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;

// Where the device under test lives.
enum class Where { IN_PROCESS, IN_JAIL };

constexpr uint64_t GUEST_CID = 3;
constexpr uint32_t FORWARDED_PORT = 22;
constexpr uint32_t CREDIT = 256 << 10;  // what the fake guest gives unless a test says otherwise
constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;

// A pair of connected, non-blocking stream sockets.
struct Pair {
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};
Pair socketPair();

// A socket that listens at a path of its own, which is gone when it is.
class Listening {
 public:
  Listening();
  ~Listening() noexcept;
  KJ_DISALLOW_COPY(Listening);

  int fd() const { return socket; }
  // A new client, which does not block. Throws when the backlog is full.
  kj::AutoCloseFd connect() const;

 private:
  kj::String path;
  kj::AutoCloseFd socket;
};

// Answers the device's questions: each port does what a test says, and others have nobody.
class TestConnector final: public Connector::Server {
 public:
  kj::Promise<void> connect(ConnectContext context) override;
  kj::Promise<void> ended(EndedContext) override { return kj::READY_NOW; }

  // Ports below 1000 are served; what the test keeps is in `ends`, in the order of the questions.
  kj::Vector<kj::AutoCloseFd> ends;
  bool keepsWhatItGives = false;  // in `given`: the very socket the device has
  kj::Vector<kj::AutoCloseFd> given;
  bool silent = false;  // never answers
  bool fails = false;   // answers with an exception
  uint32_t questions = 0;
  uint64_t lastCid = 0;
};

struct Packet {
  PacketHeader header = {};
  std::string payload;
};

// A device with one socket of each kind, its connector, and its driver: the guest's kernel as far
// as packets go.
class VsockBench {
 public:
  // `executable`: with IN_JAIL, where the devices are.
  explicit VsockBench(Where where, uint64_t ramBytes = 8 * FakeRam::MIB,
                      kj::StringPtr executable = "devices/troupe-devices");
  ~VsockBench() noexcept;
  KJ_DISALLOW_COPY(VsockBench);

  // DRIVER_OK with this many receive buffers on offer, of `bufferBytes` each.
  void start(uint16_t buffers = 64, uint32_t bufferBytes = 4096);
  void offer(uint16_t buffers, uint32_t bufferBytes);

  // With IN_JAIL: another process takes the device's place, and the driver is not told.
  void replace();
  // The same where the process before has died of itself: so may this one, at any time.
  void takeOver();
  // What outlives the processes.
  int journalToRead() const { return journal.readOnly; }

  // Reset, and a driver that knows nothing of what was.
  void restart(uint16_t buffers = 64);

  // A header as this guest would send it, between its `port` and `hostPort`.
  static PacketHeader header(uint16_t op, uint32_t port, uint32_t hostPort, uint32_t length = 0);
  void send(const PacketHeader& header, const std::string& payload = "");
  void send(uint16_t op, uint32_t port, uint32_t hostPort, const std::string& payload = "") {
    send(header(op, port, hostPort, uint32_t(payload.size())), payload);
  }

  // Many packets without payload; what comes meanwhile goes to `received`.
  void sendAll(
      kj::ArrayPtr<const PacketHeader> headers,
      kj::Function<void(const Packet&)> received = [](const Packet&) {});

  // The next packet to the guest; fails after ten seconds. Its buffer is on offer again.
  Packet receive();
  kj::Maybe<Packet> receiveIfAny();
  // The next packet has this op; returns it.
  Packet expect(uint16_t op);
  // Takes all that has come and is coming.
  void drain();
  // Nothing comes, though the device had every chance.
  void expectNothing();

  // A stream the guest has begun: its `port` to `hostPort`; the host's end.
  kj::AutoCloseFd connectOut(uint32_t port, uint32_t hostPort);
  // A stream a client of the forwarded port has begun and the guest accepted: the host's port.
  uint32_t acceptIn(uint32_t bufferSize = CREDIT);

  // Bytes of a host's socket, while the device has its turns: `count` of them, or up to the end.
  std::string read(int fd, size_t count);
  bool atEnd(int fd);  // waits for the end, or for an error
  void write(int fd, const std::string& bytes);

  FakeBroker& device() { return *broker; }

  // With IN_JAIL: writes `bytes` where an answer of the connector's should be, and hangs up.
  void spoilConnector(kj::ArrayPtr<const kj::byte> bytes);

  FakeRam ram;
  Listening hybrid;
  Listening forwarded;
  TestConnector* connector;
  kj::Own<FakeDriver> receiveDriver;
  kj::Own<FakeDriver> transmitDriver;
  kj::Own<FakeDriver> eventDriver;
  bool looksAtEveryByte = true;  // that nothing is written behind what was sent
  kj::Maybe<virtio::testing::JailedProcess&> process;  // with IN_JAIL

 private:
  void launch();
  void relaunch();
  void activate(bool isResumed);

  // Takes the payload, and checks what may be checked.
  void look(kj::ArrayPtr<kj::byte> bytes, uint32_t written, Packet& packet);

  Connector::Client own;                                // keeps `connector`
  kj::Own<virtio::testing::DeviceBench> deviceBench;    // one of the two
  kj::Own<virtio::testing::ProcessBench> processBench;  //
  FakeBroker* broker = nullptr;
  kj::Own<kj::AsyncCapabilityStream> connectorStream;
  kj::Own<capnp::TwoPartyClient> connectorRpc;
  std::map<uint32_t, virtio::testing::Buffer> offered;  // by head
  uint64_t transmitBuffer;
  const kj::String executable;
  sandbox::SharedMemory journal;  // with IN_JAIL
  uint64_t activations = 0;
  kj::Promise<void> activation = nullptr;  // after takeOver()
};

// `size` bytes that repeat nowhere near.
std::string noise(size_t size);

}  // namespace troupe::vsock::testing
