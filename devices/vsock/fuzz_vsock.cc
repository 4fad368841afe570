// Fuzzes virtio-vsock: its queues and streams, with clients and servers of the host that send,
// read, fall behind, end one way or both, and a connector that finds them or nobody.
#include <kj/debug.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "devices/virtio/guest_watch.h"
#include "devices/vsock/fuzz_request.h"
#include "devices/vsock/switchboard.h"
#include "tests/fuzz/session.h"

namespace troupe::vsock {
namespace {

using fuzz::Op;

constexpr uint16_t SLOTS = 12;
constexpr uint16_t ROOMY = 2;
constexpr size_t CREDIT = 256 << 10;

// What the host does with one socket.
struct Peer {
  Stream* stream = nullptr;
  bool closed = false;  // by the device
  std::string says;     // to be read first
  size_t bytes = 0;     // and then so many
  size_t room = 0;
  bool ended = false;
  bool gone = false;
};

class FakeSocket final: public HostSocket {
 public:
  explicit FakeSocket(Peer& peer) : peer(peer) {}
  ~FakeSocket() noexcept(false) { peer.closed = true; }

  ssize_t read(kj::ArrayPtr<const iovec> pieces) override {
    ssize_t total = 0;
    for (const iovec& piece : pieces) {
      size_t part = kj::min(piece.iov_len, peer.says.size() + peer.bytes);
      if (part == 0) break;
      auto* to = static_cast<kj::byte*>(piece.iov_base);
      virtio::watch::write(to, part);
      size_t said = kj::min(part, peer.says.size());
      memcpy(to, peer.says.data(), said);
      memset(to + said, 0x5c, part - said);
      peer.says.erase(0, said);
      peer.bytes -= part - said;
      total += ssize_t(part);
    }
    if (total > 0) return total;
    return peer.ended ? 0 : -EAGAIN;
  }

  ssize_t write(kj::ArrayPtr<const iovec> pieces) override {
    auto state = peer.stream->state;
    KJ_REQUIRE(state == Stream::State::ESTABLISHED || state == Stream::State::DRAINING,
               "bytes for a stream that nobody has accepted");
    if (peer.gone) return -EPIPE;
    ssize_t total = 0;
    for (const iovec& piece : pieces) {
      size_t part = kj::min(piece.iov_len, peer.room);
      if (part == 0) break;
      virtio::watch::read(static_cast<const kj::byte*>(piece.iov_base), part);
      peer.room -= part;
      total += ssize_t(part);
    }
    return total > 0 ? total : -EAGAIN;
  }

  void endSending() override {}
  void endReceiving() override {}
  bool peerGone() override { return peer.gone; }
  void keepLittle() override {}

 private:
  Peer& peer;
};

class FakeAttempt final: public ConnectAttempt {
 public:
  FakeAttempt(Peer& peer) : peer(peer) {}
  ~FakeAttempt() noexcept(false) {
    if (!taken) peer.closed = true;
  }
  bool over() override { return answered; }
  kj::Own<HostSocket> take() override {
    if (!found) return {};
    taken = true;
    return kj::heap<FakeSocket>(peer);
  }

  Peer& peer;
  bool answered = false;
  bool found = false;
  bool taken = false;
};

class FuzzedVsock final: public fuzz::FuzzedDevice, public HostSide {
 public:
  std::vector<uint16_t> queueSizes() override { return {64, 64, 8}; }
  uint64_t features() override { return virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX; }

  void start(uint64_t, const std::vector<virtio::Virtqueue*>& rings) override {
    active = rings;
    board.emplace(
        FUZZED_CID, *this,
        Switchboard::Rings{rings[RECEIVE_QUEUE], rings[TRANSMIT_QUEUE], rings[EVENT_QUEUE]},
        nextPort, SLOTS, ROOMY);
  }
  void stop() override {
    board = nullptr;
    peers.clear();
    attempts.clear();
    active.clear();
  }

  void kick(uint16_t) override { turn(); }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    chooseRequest(op, request);
  }

  void event(const Op& op) override {
    auto& switchboard = KJ_ASSERT_NONNULL(board);
    switch (op.a % 8) {
      case 0:  // a client of the hybrid socket
      case 1:  // of a forwarded port
        if (!switchboard.full()) admit(op);
        break;
      case 2:  // the connector answers
        if (attempts.size() > 0) {
          auto& attempt = *attempts[op.b % attempts.size()];
          attempt.found = op.c % 4 != 0;
          attempt.answered = true;
          switchboard.ready(*attempt.peer.stream);
        }
        break;
      case 3:  // time passes
        for (uint32_t i = 0; i < op.c % 40; i++)
          switchboard.tick();
        break;
      case 4:
        if (op.c % 4 == 0) switchboard.transportReset();
        break;
      default:  // a peer does something
        if (peers.size() > 0) stir(*peers[op.b % peers.size()], op);
        break;
    }
    forgetClosed();
  }

  void settle() override {
    for (auto& peer : peers) {
      peer->room = SIZE_MAX / 2;
      KJ_ASSERT_NONNULL(board).ready(*peer->stream);
    }
  }
  int turnsToSettle() override { return 2000; }
  // Packets to the guest wait for news, and refusals for buffers hold up the driver.
  bool keepsBuffers(uint16_t) override { return true; }
  // What readers that fall behind make us keep, a stream's worth at a time; promises and names.
  size_t allocationBound() override { return SLOTS * (CREDIT + 4096); }

 private:
  void turn() {
    KJ_ASSERT_NONNULL(board).serve();
    forgetClosed();
  }

  void admit(const Op& op) {
    auto peer = kj::heap<Peer>();
    auto& switchboard = KJ_ASSERT_NONNULL(board);
    auto socket = kj::heap<FakeSocket>(*peer);
    if (op.a % 8 == 0) {
      const char* lines[] = {"CONNECT 10\n", "CONNECT 11\nmore", "CONNECT 4294967295\n", "GET /\n"};
      peer->says = lines[op.b % 4];
      if (op.c % 8 == 0) peer->says = std::string(op.c % 100, char(op.d));
      peer->stream = &switchboard.greet(kj::mv(socket));
    } else {
      peer->stream = &switchboard.forward(kj::mv(socket), 10 + op.b % 4);
    }
    peer->room = op.c % 1000;
    peers.push_back(kj::mv(peer));
  }

  void stir(Peer& peer, const Op& op) {
    if (op.d & 1) peer.bytes += op.c % 100000;
    if (op.d & 2) peer.room += op.c % 100000;
    if (op.d & 4) peer.ended = true;
    if ((op.d & 24) == 24) peer.ended = peer.gone = true;
    KJ_ASSERT_NONNULL(board).ready(*peer.stream);
  }

  void ended(uint64_t, uint32_t, uint32_t) override {}

  kj::Own<ConnectAttempt> connect(Stream& stream, uint64_t, uint32_t port, uint32_t) override {
    auto peer = kj::heap<Peer>();
    peer->stream = &stream;
    auto attempt = kj::heap<FakeAttempt>(*peer);
    attempt->answered = attempt->found = port % 4 == 0;
    attempts.push_back(attempt.get());
    peers.push_back(kj::mv(peer));
    return attempt;
  }

  // Peers whose sockets the device has closed, and attempts that it has taken or given up.
  void forgetClosed() {
    size_t kept = 0;
    for (FakeAttempt* attempt : attempts) {
      bool alive = false;
      for (auto& peer : peers) {
        auto* of = peer->stream->attempt.get();
        alive |= !peer->closed && of == static_cast<ConnectAttempt*>(attempt);
      }
      if (alive) attempts[kept++] = attempt;
    }
    attempts.resize(kept);
    kept = 0;
    for (size_t i = 0; i < peers.size(); i++) {
      if (peers[i]->closed) continue;
      if (kept != i) peers[kept] = kj::mv(peers[i]);
      kept++;
    }
    peers.resize(kept);
  }

  std::vector<virtio::Virtqueue*> active;
  std::vector<kj::Own<Peer>> peers;  // outlive the sockets in `board`
  std::vector<FakeAttempt*> attempts;
  uint32_t nextPort = 0;
  kj::Maybe<Switchboard> board;
};

}  // namespace
}  // namespace troupe::vsock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::vsock::FuzzedVsock>(data, size);
}
