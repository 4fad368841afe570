// The actor as shipped, on a real tap, killed again and again amid frames and commands: its
// successors return each buffer once, and know what the driver has said. This test is troupe,
// broker and driver. How often: devices/virtio/testing/kills.h.
#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <random>
#include <vector>

#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/net/testing/net_driver.h"
#include "devices/net/testing/test_tap.h"
#include "devices/virtio/queue_journal.h"
#include "devices/virtio/testing/kills.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::net {
namespace {

using testing::NetDriver;
using testing::OTHER;
using testing::OWN;
using testing::TestTap;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint16_t PAIRS = 2;
constexpr uint32_t DEPTH = 48;         // frames and buffers of a pair on their way
constexpr uint32_t FRAME_BYTES = 100;  // testing::udpFrame
constexpr uint32_t ROOM = 1536;
constexpr size_t MARK = 50;  // where in a frame its number stands; what follows repeats it
constexpr uint16_t FLOWS = 16;
constexpr uint64_t JOURNAL_BYTES = 2 << 20;
constexpr uint64_t FEATURES = testing::FEATURES | testing::OFFLOADS | virtio::NET_F_MQ;
constexpr size_t HEADER = sizeof(virtio::NetHeader);

testing::Bytes numbered(const MacAddress& to, const MacAddress& from, uint16_t port,
                        uint32_t number) {
  auto frame = testing::udpFrame(to, from, port);
  for (size_t at = MARK; at + sizeof(number) <= frame.size(); at += sizeof(number))
    memcpy(frame.begin() + at, &number, sizeof(number));
  return frame;
}

// Whether it is one of ours; one that is in part another fails the test.
bool isNumbered(kj::ArrayPtr<const kj::byte> frame, const MacAddress& to, uint32_t below) {
  if (frame.size() != FRAME_BYTES || memcmp(frame.begin(), to.bytes, 6) != 0) return false;
  uint32_t number;
  memcpy(&number, frame.begin() + MARK, sizeof(number));
  EXPECT_LT(number, below);
  for (size_t at = MARK; at + sizeof(number) <= frame.size(); at += sizeof(number))
    EXPECT_EQ(memcmp(frame.begin() + at, &number, sizeof(number)), 0);
  return true;
}

// A driver that knows which of its buffers the device has.
class CheckingDriver: public NetDriver {
 public:
  CheckingDriver() : NetDriver(PAIRS, 256) {
    for (uint16_t pair = 0; pair < PAIRS; pair++) {
      for (uint32_t i = 0; i < DEPTH; i++) {
        idleToSend[pair].push_back(ram.allocate(HEADER + FRAME_BYTES));
        idleToReceive[pair].push_back(ram.allocate(ROOM));
      }
    }
  }

  // Everything that lies idle is on its way.
  void fill() {
    for (uint16_t pair = 0; pair < PAIRS; pair++) {
      offerAll(pair);
      for (; !idleToSend[pair].empty(); idleToSend[pair].pop_back())
        sendFrom(pair, idleToSend[pair].back());
    }
    if (commandUnderWay == nullptr) giveCommand();
  }
  void offerAll(uint16_t pair) {
    for (; !idleToReceive[pair].empty(); idleToReceive[pair].pop_back()) {
      uint64_t address = idleToReceive[pair].back();
      uint16_t head = receiver(pair).add({virtio::testing::writable(address, ROOM)});
      ASSERT_TRUE(toReceive[pair].emplace(head, address).second);
    }
  }

  void check() {
    for (uint16_t pair = 0; pair < PAIRS; pair++) {
      takeBack(transmitter(pair), toSend[pair], idleToSend[pair], [](uint64_t, uint32_t) {});
      takeBack(receiver(pair), toReceive[pair], idleToReceive[pair],
               [&](uint64_t address, uint32_t written) {
                 ASSERT_GE(written, HEADER);
                 auto frame = ram.bytes(address + HEADER, written - HEADER);
                 received[pair] += isNumbered(frame, OWN, numbersToGuest);
               });
    }
    checkCommand();
  }

  bool allSent() const { return toSend[0].empty() && toSend[1].empty(); }
  bool nothingOffered() const { return toReceive[0].empty() && toReceive[1].empty(); }
  bool commandAnswered() const { return commandUnderWay == nullptr; }

  void kick(ProcessBench& device) {
    for (uint16_t pair = 0; pair < PAIRS; pair++) {
      if (receiver(pair).shouldKick()) device.kick(2 * pair);
      if (transmitter(pair).shouldKick()) device.kick(2 * pair + 1);
    }
    if (control().shouldKick()) device.kick(2 * PAIRS);
  }

  // Of the flows that belong to this pair.
  uint16_t portOf(uint16_t pair) { return 20000 + pair * FLOWS + flow++ % FLOWS; }

  uint32_t numbersToHost = 0;
  uint32_t numbersToGuest = 0;
  uint32_t received[PAIRS] = {};
  uint32_t answers = 0;

 private:
  using UnderWay = std::map<uint32_t, uint64_t>;  // by head

  void sendFrom(uint16_t pair, uint64_t address) {
    auto frame = testing::withHeader({}, numbered(OTHER, OWN, portOf(pair), numbersToHost++));
    memcpy(ram.bytes(address, frame.size()).begin(), frame.begin(), frame.size());
    uint16_t head =
        transmitter(pair).add({virtio::testing::readable(address, uint32_t(frame.size()))});
    ASSERT_TRUE(toSend[pair].emplace(head, address).second);
  }

  template <typename Look>
  void takeBack(FakeDriver& driver, UnderWay& underWay, std::vector<uint64_t>& idle, Look&& look) {
    for (;;) {
      auto used = driver.takeUsed();
      KJ_IF_MAYBE (one, used) {
        auto found = underWay.find(one->head);
        ASSERT_TRUE(found != underWay.end()) << "returned twice";
        look(found->second, one->written);
        idle.push_back(found->second);
        underWay.erase(found);
      } else {
        return;
      }
    }
  }

  // By turns: how many pairs there are, and which frames are wanted.
  void giveCommand() {
    bool isPairs = answers % 2 == 0;
    kj::byte header[] = {isPairs ? virtio::NET_CTRL_MQ : virtio::NET_CTRL_RX,
                         isPairs ? virtio::NET_CTRL_MQ_VQ_PAIRS_SET : virtio::NET_CTRL_RX_ALLUNI};
    kj::byte data[] = {kj::byte(isPairs ? PAIRS : 1), 0};
    uint64_t answer = ram.allocate(1);
    control().add({control().readableBuffer(header),
                   control().readableBuffer(kj::arrayPtr(data, isPairs ? 2 : 1)),
                   virtio::testing::writable(answer, 1)});
    commandUnderWay = answer;
  }

  void checkCommand() {
    auto used = control().takeUsed();
    if (used == nullptr) return;
    uint64_t answer = 0;
    KJ_IF_MAYBE (address, commandUnderWay) {
      answer = *address;
    }
    ASSERT_NE(answer, 0) << "answered twice";
    EXPECT_EQ(ram.bytes(answer, 1)[0], virtio::NET_OK);
    commandUnderWay = nullptr;
    ++answers;
  }

  UnderWay toSend[PAIRS], toReceive[PAIRS];
  std::vector<uint64_t> idleToSend[PAIRS], idleToReceive[PAIRS];
  kj::Maybe<uint64_t> commandUnderWay;
  uint32_t flow = 0;
};

// One process of the device.
class Life {
 public:
  Life(NetDriver& driver, const TestTap& tap, int journal, bool isFirst)
      : fds{HandedFd{"tap", 0, tap.queue(0)}, HandedFd{"tap", 1, tap.queue(1)},
            HandedFd{"journal", 0, journal}},
        device(driver.ram, NET_PROFILE, "troupe-net", 2 * PAIRS + 1, fds, configure()) {
    device.attach();
    driver.activateAs(device, FEATURES, 1, !isFirst);
  }
  void kill() {
    device.child().kill();
    device.waitForExit();
  }

 private:
  kj::Maybe<capnp::AnyPointer::Reader> configure() {
    auto config = message.initRoot<NetConfig>();
    config.setMac(kj::ArrayPtr<const kj::byte>(OWN.bytes));
    config.setQueuePairs(PAIRS);
    config.setBackend(NetConfig::Backend::TAP);
    auto can = config.initOffloads();
    can.setChecksum(true);
    can.setTso4(true);
    can.setTso6(true);
    can.setEcn(true);
    return message.getRoot<capnp::AnyPointer>().asReader();
  }

  capnp::MallocMessageBuilder message;
  HandedFd fds[3];

 public:
  ProcessBench device;
};

struct Bench {
  // What the host has sent and what it gets, some of it.
  void work(ProcessBench& device) {
    driver.kick(device);
    for (uint16_t pair = 0; pair < PAIRS; pair++)
      tap.send({}, numbered(OWN, OTHER, driver.portOf(pair), driver.numbersToGuest++));
    for (int i = 0; i < 16; i++) {
      auto got = tap.receive();
      KJ_IF_MAYBE (frame, got) {
        reachedHost += isNumbered(frame->slice(HEADER, frame->size()), OTHER, driver.numbersToHost);
      } else {
        break;
      }
    }
    driver.check();
  }
  template <typename Done>
  void workUntil(ProcessBench& device, kj::StringPtr what, Done&& done) {
    auto deadline = Clock::now() + std::chrono::seconds(60);
    while (!::testing::Test::HasFailure() && !done()) {
      work(device);
      ASSERT_LT(Clock::now(), deadline) << what.cStr();
    }
  }

  using Clock = std::chrono::steady_clock;
  TestTap tap{PAIRS};
  CheckingDriver driver;
  sandbox::SharedMemory journal = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
  uint32_t reachedHost = 0;
};

TEST(NetKilled, EachBufferIsReturnedOnceWhereverItIsKilled) {
  Bench bench;
  auto& driver = bench.driver;
  using Clock = Bench::Clock;
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<double> stallsMs;
  virtio::testing::Kills kills;
  while (!::testing::Test::HasFailure() && kills.takeOne()) {
    auto begun = Clock::now();
    Life life(driver, bench.tap, bench.journal.writable, kills.count() == 1);
    driver.fill();
    // It serves: not a life without work.
    uint32_t before = driver.received[0] + driver.received[1];
    bench.workUntil(life.device, "nothing comes to the guest",
                    [&] { return driver.received[0] + driver.received[1] > before; });
    stallsMs.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begun).count());
    auto until = Clock::now() + std::chrono::microseconds(random() % 3000);
    while (!::testing::Test::HasFailure() && Clock::now() < until) {
      driver.fill();
      bench.work(life.device);
    }
    life.kill();
  }

  Life last(driver, bench.tap, bench.journal.writable, false);
  bench.workUntil(last.device, "a frame or a command is lost",
                  [&] { return driver.allSent() && driver.commandAnswered(); });
  // All buffers come back, and those of the second pair by the tap's second queue.
  bench.workUntil(last.device, "a buffer is lost", [&] { return driver.nothingOffered(); });
  EXPECT_EQ(last.device.host.resetsAsked, 0);
  EXPECT_GT(driver.received[1], 0);
  EXPECT_GT(bench.reachedHost, 0);
  EXPECT_GT(driver.answers, 0);
  std::sort(stallsMs.begin(), stallsMs.end());
  std::cout << kills.count() << " kills, " << driver.numbersToHost << " frames from the guest, "
            << bench.reachedHost << " reached the host, " << driver.received[0] << " and "
            << driver.received[1] << " the guest by its pairs, " << driver.answers
            << " commands; launch to first frame p50 " << stallsMs[stallsMs.size() / 2] << " ms\n";
}

TEST(NetKilled, ASuccessorKnowsWhatTheDriverHasSaid) {
  Bench bench;
  auto& driver = bench.driver;
  constexpr MacAddress MOVED{{0x52, 0x54, 0x00, 0x99, 0x99, 0x99}};
  for (int number = 0; number < 3; number++) {
    Life life(driver, bench.tap, bench.journal.writable, number == 0);
    if (number == 0) {
      kj::byte off = 0;
      uint16_t pairs = 2;
      auto say = [&](uint8_t kind, uint8_t command, auto data) {
        ASSERT_EQ(driver.command(life.device, kind, command, data), virtio::NET_OK);
      };
      say(virtio::NET_CTRL_MQ, virtio::NET_CTRL_MQ_VQ_PAIRS_SET, pairs);
      say(virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_PROMISC, off);
      say(virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_ADDR_SET, MOVED);
      say(virtio::NET_CTRL_GUEST_OFFLOADS, virtio::NET_CTRL_GUEST_OFFLOADS_SET, uint64_t(0));
    } else {
      // It says the address that the driver gave, and asks it to announce itself.
      life.device.waitUntil([&] { return life.device.host.configChanges.size() >= 2; });
      auto& changes = life.device.host.configChanges;
      EXPECT_EQ(memcmp(changes[0].data.begin(), MOVED.bytes, 6), 0);
      EXPECT_EQ(changes[1].offset, offsetof(virtio::NetConfigSpace, status));
      EXPECT_EQ(changes[1].data[0], virtio::NET_S_LINK_UP | virtio::NET_S_ANNOUNCE);
    }
    for (uint16_t pair = 0; pair < PAIRS; pair++)
      driver.offerAll(pair);
    // Frames for its first address are not wanted any more; a segment is cut up.
    bench.tap.send({}, numbered(OWN, OTHER, 20000, driver.numbersToGuest++));
    auto segment = testing::tcpPacket(MOVED, OTHER, 4 * 1000, 1000);
    bench.tap.send(segment.header, segment.frame);
    uint32_t cut = 0;
    life.device.waitUntil([&] {
      driver.kick(life.device);
      for (uint16_t pair = 0; pair < PAIRS; pair++) {
        auto used = driver.receiver(pair).takeUsed();
        KJ_IF_MAYBE (one, used) {
          EXPECT_NE(one->written, HEADER + FRAME_BYTES);
          cut += one->written == HEADER + 54 + 1000;
        }
      }
      return cut == 4;
    });
    life.kill();
  }
}

// A successor believes nothing that cannot be.
TEST(NetKilled, NonsenseInTheKeptMemoryAsksForAReset) {
  Bench bench;
  auto& driver = bench.driver;
  {
    Life life(driver, bench.tap, bench.journal.writable, true);
    driver.fill();
    bench.workUntil(life.device, "no answer", [&] { return driver.commandAnswered(); });
    life.kill();
  }
  // A mad number of pairs in both places.
  constexpr uint64_t KEPT = virtio::QUEUE_JOURNALS_BYTES;
  constexpr uint64_t PAIRS_AT = 8;
  uint16_t many = 9;
  for (uint64_t place : {64, 64 + 792}) {
    uint16_t found;
    KJ_SYSCALL(pread(bench.journal.writable, &found, sizeof(found), KEPT + place + PAIRS_AT));
    EXPECT_TRUE(found == 1 || found == 2) << found;
    KJ_SYSCALL(pwrite(bench.journal.writable, &many, sizeof(many), KEPT + place + PAIRS_AT));
  }
  Life life(driver, bench.tap, bench.journal.writable, false);
  life.device.waitUntil([&] { return life.device.host.resetsAsked > 0; });
  life.kill();
}

}  // namespace
}  // namespace troupe::net
