// Streams as time passes, and readers that fall behind: what no real clock and no real socket shows
// soon enough.
#include "devices/vsock/switchboard.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cerrno>
#include <string>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"

namespace troupe::vsock {
namespace {

using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;

constexpr uint64_t CID = 3;

struct Peer {
  std::string sends;
  std::string got;
  size_t room = SIZE_MAX;
  bool ended = false;
  bool gone = false;
  bool closed = false;
  bool wasTold = false;  // of the guest's end
};

class FakeSocket final: public HostSocket {
 public:
  explicit FakeSocket(Peer& peer) : peer(peer) {}
  ~FakeSocket() noexcept(false) { peer.closed = true; }
  ssize_t read(kj::ArrayPtr<const iovec> pieces) override {
    if (peer.sends.empty()) return peer.ended ? 0 : -EAGAIN;
    size_t part = kj::min(pieces[0].iov_len, peer.sends.size());
    memcpy(pieces[0].iov_base, peer.sends.data(), part);
    peer.sends.erase(0, part);
    return ssize_t(part);
  }
  ssize_t write(kj::ArrayPtr<const iovec> pieces) override {
    if (peer.gone) return -EPIPE;
    size_t part = kj::min(pieces[0].iov_len, peer.room);
    if (part == 0) return -EAGAIN;
    peer.got.append(static_cast<char*>(pieces[0].iov_base), part);
    peer.room -= part;
    return ssize_t(part);
  }
  void endSending() override { peer.wasTold = true; }
  void endReceiving() override {}
  bool peerGone() override { return peer.gone; }
  void keepLittle() override {}

 private:
  Peer& peer;
};

class NeverOver final: public ConnectAttempt {
 public:
  bool over() override { return false; }
  kj::Own<HostSocket> take() override { return {}; }
};

// What became of an offer.
struct Wish {
  bool accepted = false;
  bool over = false;
};

class FakeOffer final: public Offer {
 public:
  explicit FakeOffer(Wish& wish) : wish(wish) {}
  ~FakeOffer() noexcept(false) { wish.over = true; }
  void accepted() override { wish.accepted = true; }

 private:
  Wish& wish;
};

// A guest with one buffer after the other, and its switchboard.
struct Bench: public HostSide {
  kj::Own<ConnectAttempt> connect(Stream&, uint64_t, uint32_t, uint32_t) override {
    asked++;
    return kj::heap<NeverOver>();
  }
  void ended(uint64_t peerCid, uint32_t peerPort, uint32_t guestPort) override {
    ends.push_back({peerCid, peerPort, guestPort});
  }

  Bench() {
    for (int i = 0; i < 32; i++)
      receive.add({virtio::testing::writable(buffers + i * 4096, 4096)});
  }

  void turn() {
    for (int i = 0; i < 8; i++)
      board.serve();
  }
  void pass(uint32_t seconds) {
    for (uint32_t i = 0; i < seconds; i++) {
      board.tick();
      turn();
    }
  }
  void send(uint16_t op, uint32_t port, uint32_t hostPort, uint32_t length = 0,
            uint32_t flags = 0) {
    PacketHeader header = {};
    header.sourceCid = CID;
    header.destinationCid = peerCid;
    header.sourcePort = port;
    header.destinationPort = hostPort;
    header.length = length;
    header.type = TYPE_STREAM;
    header.op = op;
    header.flags = flags;
    header.bufferSize = credit;
    memcpy(ram.bytes(outgoing, sizeof(header)).begin(), &header, sizeof(header));
    if (length > 0) {
      transmit.add({virtio::testing::readable(outgoing, sizeof(header)),
                    virtio::testing::readable(outgoing + 64, length)});
    } else {
      transmit.add({virtio::testing::readable(outgoing, sizeof(header))});
    }
    turn();
    while (transmit.takeUsed() != nullptr) {
    }
  }
  // The op of the next packet to the guest; 0 if there is none.
  uint16_t next() {
    turn();
    KJ_IF_MAYBE (used, receive.takeUsed()) {
      uint64_t address = buffers + taken++ % 32 * 4096;
      memcpy(&last, ram.bytes(address, sizeof(last)).begin(), sizeof(last));
      receive.add({virtio::testing::writable(address, 4096)});
      static_cast<void>(used);
      return last.op;
    }
    return 0;
  }
  // Somebody with a name of his own has a stream for the guest's port 22.
  Stream& offer(const StreamKey& key, Wish& wish) {
    return board.offer(kj::heap<FakeSocket>(peer), key, kj::heap<FakeOffer>(wish));
  }
  // What the guest answers to it.
  void answer(uint16_t op, const StreamKey& key, uint32_t flags = 0) {
    peerCid = key.peerCid;
    send(op, key.guestPort, key.peerPort, 0, flags);
  }
  Stream& client(uint32_t port = 22) { return board.forward(kj::heap<FakeSocket>(peer), port); }

  FakeRam ram{8 * FakeRam::MIB};
  uint64_t buffers = ram.allocate(32 * 4096);
  uint64_t outgoing = ram.allocate(128 << 10);
  FakeDriver receive{ram, 64};
  FakeDriver transmit{ram, 64};
  FakeDriver event{ram, 8};
  virtio::GuestMemory memory = ram.memory();
  virtio::Virtqueue receiveRing{memory, receive.layout(), {true, true}};
  virtio::Virtqueue transmitRing{memory, transmit.layout(), {true, true}};
  virtio::Virtqueue eventRing{memory, event.layout(), {true, true}};
  Peer peer;  // outlives its socket
  uint32_t asked = 0;
  uint64_t peerCid = HOST_CID;
  std::vector<StreamKey> ends;
  uint32_t taken = 0;
  uint32_t credit = 1 << 20;
  PacketHeader last = {};
  uint32_t nextPort = 0;
  Switchboard board{CID, *this, {&receiveRing, &transmitRing, &eventRing}, nextPort, 64};
};

TEST(Switchboard, ClientThatSaysNothingIsHungUpOn) {
  Bench bench;
  bench.board.greet(kj::heap<FakeSocket>(bench.peer));
  bench.peer.sends = "CONN";
  bench.pass(9);
  EXPECT_FALSE(bench.peer.closed);
  bench.pass(1);
  EXPECT_TRUE(bench.peer.closed);
  EXPECT_EQ(bench.next(), 0);  // the guest never heard of it
  EXPECT_FALSE(bench.board.needsTicks());
}

constexpr StreamKey FROM_ANOTHER_GUEST = {7, 1024, 22};

TEST(Switchboard, AnOfferComesFromWhomItSaysAndItsEndIsToldOnce) {
  Bench bench;
  Wish wish;
  bench.offer(FROM_ANOTHER_GUEST, wish);
  EXPECT_TRUE(bench.board.taken(FROM_ANOTHER_GUEST));
  EXPECT_EQ(bench.next(), OP_REQUEST);
  EXPECT_EQ(bench.last.sourceCid, 7);
  EXPECT_EQ(bench.last.sourcePort, 1024);
  EXPECT_FALSE(wish.over);
  bench.answer(OP_RESPONSE, FROM_ANOTHER_GUEST);
  EXPECT_TRUE(wish.accepted);
  EXPECT_TRUE(wish.over);
  EXPECT_EQ(bench.ends.size(), 0);
  bench.answer(OP_RST, FROM_ANOTHER_GUEST);
  ASSERT_EQ(bench.ends.size(), 1);
  EXPECT_TRUE(bench.ends[0] == FROM_ANOTHER_GUEST);
  EXPECT_FALSE(bench.board.taken(FROM_ANOTHER_GUEST));
}

TEST(Switchboard, AnOfferThatTheGuestRefusesIsRefusedAndHasNoEnd) {
  Bench bench;
  Wish wish;
  bench.offer(FROM_ANOTHER_GUEST, wish);
  EXPECT_EQ(bench.next(), OP_REQUEST);
  bench.answer(OP_RST, FROM_ANOTHER_GUEST);
  EXPECT_FALSE(wish.accepted);
  EXPECT_TRUE(wish.over);
  EXPECT_TRUE(bench.peer.closed);
  EXPECT_EQ(bench.ends.size(), 0);
}

TEST(Switchboard, AnOfferThatTheGuestDoesNotAnswerIsRefusedInTime) {
  Bench bench;
  Wish wish;
  bench.offer(FROM_ANOTHER_GUEST, wish);
  EXPECT_EQ(bench.next(), OP_REQUEST);
  bench.pass(10);
  EXPECT_TRUE(wish.over);
  EXPECT_FALSE(wish.accepted);
  EXPECT_EQ(bench.next(), OP_RST);
}

TEST(Switchboard, WhenAllIsClosedTheEndsOfOffersAreTold) {
  Bench bench;
  Wish wish;
  bench.offer(FROM_ANOTHER_GUEST, wish);
  EXPECT_EQ(bench.next(), OP_REQUEST);
  bench.answer(OP_RESPONSE, FROM_ANOTHER_GUEST);
  bench.client();
  bench.board.closeAll();
  EXPECT_EQ(bench.ends.size(), 1);
  EXPECT_EQ(bench.board.streams(), 0);
}

TEST(Switchboard, GuestThatDoesNotAnswerLosesTheClient) {
  Bench bench;
  bench.client();
  EXPECT_EQ(bench.next(), OP_REQUEST);
  bench.pass(10);
  EXPECT_TRUE(bench.peer.closed);
  EXPECT_EQ(bench.next(), OP_RST);
  EXPECT_EQ(bench.board.streams(), 0);
}

TEST(Switchboard, ClientThatLeavesBeforeTheAnswerIsForgotten) {
  Bench bench;
  Stream& stream = bench.client();
  EXPECT_EQ(bench.next(), OP_REQUEST);
  bench.peer.gone = true;
  bench.board.ready(stream);
  EXPECT_EQ(bench.next(), OP_RST);
  EXPECT_EQ(bench.board.streams(), 0);
}

TEST(Switchboard, ConnectorThatDoesNotAnswerMakesAReset) {
  Bench bench;
  bench.send(OP_REQUEST, 1024, 52);
  EXPECT_EQ(bench.asked, 1);
  EXPECT_EQ(bench.next(), 0);
  bench.pass(10);
  EXPECT_EQ(bench.next(), OP_RST);
  EXPECT_EQ(bench.board.streams(), 0);
}

TEST(Switchboard, ConnectorIsAskedAFewAtATime) {
  Bench bench;
  for (uint32_t port = 0; port < 60; port++)
    bench.send(OP_REQUEST, port, 52);
  EXPECT_EQ(bench.asked, 32);
  bench.send(OP_RST, 0, 52);  // given up: room for one more
  EXPECT_EQ(bench.asked, 33);
}

TEST(Switchboard, GuestThatDoesNotConfirmACloseIsTold) {
  Bench bench;
  Stream& stream = bench.client();
  EXPECT_EQ(bench.next(), OP_REQUEST);
  bench.send(OP_RESPONSE, 22, bench.last.sourcePort);
  bench.peer.ended = bench.peer.gone = true;
  bench.board.ready(stream);
  EXPECT_EQ(bench.next(), OP_SHUTDOWN);
  EXPECT_EQ(bench.last.flags, SHUTDOWN_BOTH);
  EXPECT_TRUE(bench.peer.closed);
  bench.pass(59);
  bench.send(OP_CREDIT_UPDATE, 22, bench.last.sourcePort);  // its reader is at work
  bench.pass(59);
  EXPECT_EQ(bench.next(), 0);
  bench.pass(1);
  EXPECT_EQ(bench.next(), OP_RST);
  EXPECT_EQ(bench.board.streams(), 0);
}

TEST(Switchboard, GuestThatGivesNoCreditIsAskedOnce) {
  Bench bench;
  Stream& stream = bench.client();
  EXPECT_EQ(bench.next(), OP_REQUEST);
  bench.credit = 10;
  bench.send(OP_RESPONSE, 22, bench.last.sourcePort);
  bench.peer.sends = std::string(1000, 'x');
  bench.board.ready(stream);
  EXPECT_EQ(bench.next(), OP_RW);
  EXPECT_EQ(bench.last.length, 10);
  EXPECT_EQ(bench.next(), 0);  // not at once: it may be about to
  bench.pass(1);
  EXPECT_EQ(bench.next(), OP_CREDIT_REQUEST);
  bench.pass(10);
  EXPECT_EQ(bench.next(), 0);
  EXPECT_FALSE(bench.board.needsTicks());
  bench.credit = 500;
  bench.send(OP_CREDIT_UPDATE, 22, bench.last.sourcePort);
  EXPECT_EQ(bench.next(), OP_RW);
  EXPECT_EQ(bench.last.length, 490);
}

struct Draining: public Bench {
  Draining() {
    stream = &client();
    KJ_ASSERT(next() == OP_REQUEST);
    uint32_t port = last.sourcePort;
    send(OP_RESPONSE, 22, port);
    peer.room = 0;
    send(OP_RW, 22, port, 1000);
    send(OP_SHUTDOWN, 22, port, 0, SHUTDOWN_BOTH);
    KJ_ASSERT(next() == OP_RST);  // the guest is through with it at once
  }
  Stream* stream;
};

TEST(Switchboard, WhatTheGuestSentIsDeliveredThoughItHasClosed) {
  Draining bench;
  EXPECT_EQ(bench.board.streams(), 1);
  bench.pass(29);
  bench.peer.room = 400;
  bench.board.ready(*bench.stream);
  bench.turn();
  bench.pass(29);  // each byte taken is a reason to wait on
  EXPECT_FALSE(bench.peer.closed);
  bench.peer.room = 600;
  bench.board.ready(*bench.stream);
  bench.turn();
  EXPECT_EQ(bench.peer.got.size(), 1000);
  EXPECT_TRUE(bench.peer.wasTold);
  EXPECT_TRUE(bench.peer.closed);
  EXPECT_EQ(bench.board.streams(), 0);
}

TEST(Switchboard, ReaderThatTakesNothingOfItIsGivenUp) {
  Draining bench;
  bench.pass(30);
  EXPECT_TRUE(bench.peer.closed);
  EXPECT_EQ(bench.board.streams(), 0);
  EXPECT_FALSE(bench.board.needsTicks());
}

TEST(Switchboard, PortsOfAStreamThatDrainsAreFree) {
  Draining bench;
  bench.send(OP_REQUEST, 22, bench.last.sourcePort);
  EXPECT_EQ(bench.asked, 1);
  EXPECT_EQ(bench.next(), 0);
}

TEST(Switchboard, FullTableTakesNoMoreOfTheGuestsStreams) {
  Bench bench;
  for (uint32_t port = 0; port < 64; port++)
    bench.send(OP_REQUEST, port, 52);
  EXPECT_TRUE(bench.board.full());
  EXPECT_EQ(bench.next(), 0);
  bench.send(OP_REQUEST, 64, 52);
  EXPECT_EQ(bench.next(), OP_RST);
  EXPECT_EQ(bench.last.destinationPort, 64);
}

TEST(Switchboard, TransportResetWithNoBufferForItsEventWaits) {
  Bench bench;
  bench.client();
  bench.board.transportReset();
  EXPECT_TRUE(bench.peer.closed);
  EXPECT_EQ(bench.board.streams(), 0);
  bench.turn();
  bench.event.add({virtio::testing::writable(bench.ram.allocate(8), 2)});  // too small
  bench.event.add({virtio::testing::writable(bench.ram.allocate(8), 8)});
  bench.turn();
  EXPECT_EQ(KJ_ASSERT_NONNULL(bench.event.takeUsed()).written, 0);
  EXPECT_EQ(KJ_ASSERT_NONNULL(bench.event.takeUsed()).written, sizeof(Event));
}

}  // namespace
}  // namespace troupe::vsock
