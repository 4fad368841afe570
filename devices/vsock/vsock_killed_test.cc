// The actor as shipped, killed under its driver: its streams end, the driver is told so, and what
// comes next works. How often amid traffic: devices/virtio/testing/kills.h.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <random>
#include <string>

#include "devices/virtio/testing/kills.h"
#include "devices/vsock/testing/vsock_bench.h"

namespace troupe::vsock {
namespace {

using testing::FORWARDED_PORT;
using testing::noise;
using testing::Packet;
using testing::VsockBench;
using testing::Where;

// The driver's event queue, with all buffers of Linux on offer.
class Events {
 public:
  explicit Events(VsockBench& bench) : bench(bench) {
    for (int i = 0; i < 8; i++)
      offer();
  }
  void offer() {
    auto buffer = bench.eventDriver->writableBuffer(sizeof(Event));
    memset(bench.ram.bytes(buffer.address, sizeof(Event)).begin(), 0xee, sizeof(Event));
    buffers[bench.eventDriver->add({buffer})] = buffer;
    if (bench.eventDriver->shouldKick()) bench.device().kick(EVENT_QUEUE);
  }
  bool hasCome() {
    KJ_IF_MAYBE (used, bench.eventDriver->takeUsed()) {
      EXPECT_EQ(used->written, sizeof(Event));
      auto buffer = buffers.at(used->head);
      buffers.erase(used->head);
      Event event;
      memcpy(&event, bench.ram.bytes(buffer.address, sizeof(event)).begin(), sizeof(event));
      EXPECT_EQ(event.id, EVENT_TRANSPORT_RESET);  // §5.10.6.7
      return true;
    }
    return false;
  }
  // Takes it as a driver does: first the event, and then it offers its buffer anew.
  void expectReset() {
    bench.device().waitUntil([&] { return hasCome(); });
    offer();
  }

 private:
  VsockBench& bench;
  std::map<uint32_t, virtio::testing::Buffer> buffers;
};

struct Killed: public VsockBench {
  Killed() : VsockBench(Where::IN_JAIL, 32 * testing::FakeRam::MIB) {
    start();
    events = kj::heap<Events>(*this);
  }
  kj::Own<Events> events;
};

TEST(VsockKilled, StreamsEndAndTheDriverIsTold) {
  Killed bench;
  auto out = bench.connectOut(1024, 52);
  auto client = bench.forwarded.connect();
  uint32_t port = bench.acceptIn();
  bench.replace();
  EXPECT_TRUE(bench.atEnd(out));
  EXPECT_TRUE(bench.atEnd(client));
  bench.events->expectReset();
  // Streams both ways begin at once, and at a port of the host's that the guest has not seen.
  auto again = bench.connectOut(1025, 52);
  bench.send(OP_RW, 1025, 52, "hello");
  EXPECT_EQ(bench.read(again, 5), "hello");
  auto next = bench.forwarded.connect();
  EXPECT_GT(bench.acceptIn(), port);
  bench.write(next, "in");
  EXPECT_EQ(bench.expect(OP_RW).payload, "in");
  auto hybrid = bench.hybrid.connect();
  bench.write(hybrid, "CONNECT 1234\n");
  EXPECT_EQ(bench.expect(OP_REQUEST).header.destinationPort, 1234u);
}

// A client that came while nobody played the device.
TEST(VsockKilled, ClientsWaitInTheBacklog) {
  Killed bench;
  auto& process = KJ_ASSERT_NONNULL(bench.process);
  process.child().kill();
  process.waitForExit();
  auto client = bench.forwarded.connect();
  bench.replace();
  bench.events->expectReset();
  bench.acceptIn();
  bench.write(client, "still here");
  EXPECT_EQ(bench.expect(OP_RW).payload, "still here");
}

// Whatever a driver hears before it has dealt with the event may be of streams that it is about to
// end: so nothing comes.
TEST(VsockKilled, NothingPassesBeforeTheDriverHasDealtWithTheReset) {
  Killed bench;
  bench.replace();
  bench.device().waitUntil([&] { return bench.events->hasCome(); });
  auto request = VsockBench::header(OP_REQUEST, 1024, 52);
  bench.transmitDriver->add(
      {bench.transmitDriver->readableBuffer(kj::arrayPtr(&request, 1).asBytes())});
  bench.device().kick(TRANSMIT_QUEUE);
  bench.expectNothing();
  EXPECT_EQ(bench.connector->questions, 0u);
  bench.events->offer();
  bench.expect(OP_RESPONSE);
}

// One that never offers its buffer again gets on after a second.
TEST(VsockKilled, ADriverThatForgetsTheEventIsServedAllTheSame) {
  Killed bench;
  bench.replace();
  bench.device().waitUntil([&] { return bench.events->hasCome(); });
  bench.connectOut(1024, 52);
}

// Packets of all kinds on their way both ways: each chain comes back once, and what came over a
// stream is what was sent, up to where it ended.
TEST(VsockKilled, NoChainIsLostOrReturnedTwiceWhereverItIsKilled) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Killed bench;
  // What a dead process had begun to write stands behind what its successor sent.
  bench.looksAtEveryByte = false;
  const std::string text = noise(64 << 10);
  uint64_t packets = 0, received = 0, bytes = 0;
  uint32_t port = 2000;
  // Of the driver's: headers and payload, a place for each chain.
  constexpr uint32_t PLACES = 64, PLACE_BYTES = 4096;
  uint64_t places = bench.ram.allocate(PLACES * PLACE_BYTES);

  virtio::testing::Kills kills;
  while (!::testing::Test::HasFailure() && kills.takeOne()) {
    auto host = bench.connectOut(++port, 52);
    auto client = bench.forwarded.connect();
    uint32_t hostPort = bench.acceptIn();
    bench.write(client, text.substr(0, 1 + random() % text.size() / 2));
    // As much as fits the credit: every packet is one chain of two buffers.
    size_t count = 1 + random() % PLACES;
    std::string sent;
    for (size_t i = 0; i < count; i++) {
      uint32_t size = 1 + random() % 2000;
      bool isOfHost = random() % 4 == 0;
      auto header = VsockBench::header(OP_RW, isOfHost ? FORWARDED_PORT : port,
                                       isOfHost ? hostPort : 52, size);
      uint64_t at = places + i * PLACE_BYTES;
      memcpy(bench.ram.bytes(at, sizeof(header)).begin(), &header, sizeof(header));
      const char* data = text.data() + random() % (text.size() - size);
      memcpy(bench.ram.bytes(at + 64, size).begin(), data, size);
      if (!isOfHost) sent.append(data, size);
      bench.transmitDriver->add({virtio::testing::readable(at, sizeof(header)),
                                 virtio::testing::readable(at + 64, size)});
    }
    if (bench.transmitDriver->shouldKick()) bench.device().kick(TRANSMIT_QUEUE);
    // Somewhere amid this.
    usleep(random() % 1000);
    for (int i = random() % 8; i > 0; i--)
      received += bench.receiveIfAny() != nullptr;
    bench.replace();
    size_t returned = 0;
    bool isReset = false;
    bench.device().waitUntil([&] {
      while (bench.transmitDriver->takeUsed() != nullptr)
        returned++;
      while (bench.receiveIfAny() != nullptr)  // whose buffer is known, or it throws
        received++;
      if (!isReset && bench.events->hasCome()) {
        isReset = true;
        bench.events->offer();
      }
      return isReset && returned >= count;
    });
    EXPECT_EQ(returned, count);
    packets += count;
    auto got = bench.read(host, SIZE_MAX);
    EXPECT_EQ(got, sent.substr(0, got.size()));
    bytes += got.size();
    bench.read(client, SIZE_MAX);  // up to its end
    bench.drain();
    EXPECT_FALSE(bench.events->hasCome()) << "told twice";
    EXPECT_EQ(bench.transmitDriver->takeUsed(), nullptr);
  }
  auto last = bench.connectOut(1024, 52);
  bench.send(OP_RW, 1024, 52, "the end");
  EXPECT_EQ(bench.read(last, 7), "the end");
  std::cout << kills.count() << " kills, " << packets << " packets, " << received
            << " to the guest, " << bytes << " bytes read on the host\n";
}

}  // namespace
}  // namespace troupe::vsock
