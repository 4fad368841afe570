// troupe-net in its jail, with this test as broker, guest and host's end.
#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/mutex.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/net/testing/net_driver.h"
#include "devices/virtio/testing/process_bench.h"

namespace troupe::net {
namespace {

using testing::Cable;
using testing::frame;
using testing::NetDriver;
using testing::OTHER;
using testing::OWN;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint16_t PAIRS = 4;

// A device on sockets that keep messages apart, with headers.
struct Bench: public NetDriver {
  explicit Bench(uint64_t features = testing::FEATURES | testing::OFFLOADS | virtio::NET_F_MQ)
      : NetDriver(PAIRS, 64), features(features) {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<NetConfig>();
    config.setMac(kj::ArrayPtr<const kj::byte>(OWN.bytes));
    config.setMtu(1500);
    config.setQueuePairs(PAIRS);
    config.setBackend(NetConfig::Backend::PACKETS);
    config.setSocketHasHeaders(true);
    auto offloads = config.initOffloads();
    offloads.setChecksum(true);
    offloads.setTso4(true);
    offloads.setTso6(true);
    offloads.setEcn(true);
    config.setSpoofFilter(true);
    config.setCapture(true);
    char path[] = "/tmp/troupe-net-XXXXXX";
    int fd;
    KJ_SYSCALL(fd = mkostemp(path, O_CLOEXEC));
    capture = kj::AutoCloseFd(fd);
    KJ_SYSCALL(unlink(path));
    kj::Vector<HandedFd> fds;
    for (uint16_t i = 0; i < PAIRS; i++)
      fds.add(HandedFd{"socket", i, cables[i].device});
    fds.add(HandedFd{"pcap", 0, capture});
    device = kj::heap<ProcessBench>(ram, NET_PROFILE, "troupe-net", 2 * PAIRS + 1, fds,
                                    message.getRoot<capnp::AnyPointer>().asReader());
    device->attach();
    device->describe();  // behind it the fds that came with attach() are closed
  }

  void start() { activate(*device, features); }
  void usePairs(uint16_t count) {
    KJ_ASSERT(command(*device, virtio::NET_CTRL_MQ, virtio::NET_CTRL_MQ_VQ_PAIRS_SET, count) ==
              virtio::NET_OK);
  }
  testing::Bytes waitForFrame(uint16_t pair) {
    testing::Bytes result;
    device->waitUntil([&] {
      KJ_IF_MAYBE (got, cables[pair].peer.receive()) {
        result = kj::mv(*got);
        return true;
      }
      return false;
    });
    return result;
  }
  // A driver that keeps the rules is served.
  void expectWell(uint16_t pair, kj::byte fill) {
    offer(*device, 2, 2048, pair);
    cables[pair].peer.send(testing::withHeader({}, frame(OWN, OTHER, 300, fill)));
    EXPECT_EQ(waitForArrival(*device, pair).frame, frame(OWN, OTHER, 300, fill));
    send(*device, frame(OTHER, OWN, 300, fill), pair);
    EXPECT_EQ(waitForFrame(pair), testing::withHeader({}, frame(OTHER, OWN, 300, fill)));
  }
  kj::String differences(sandbox::Stage stage) { return kj::strArray(device->attest(stage), "\n"); }

  const uint64_t features;
  kj::AutoCloseFd capture;
  Cable cables[PAIRS] = {Cable(SOCK_SEQPACKET), Cable(SOCK_SEQPACKET), Cable(SOCK_SEQPACKET),
                         Cable(SOCK_SEQPACKET)};
  kj::Own<ProcessBench> device;
};

// The end of a process that was started with `change`d configuration.
template <typename Change>
int statusWith(Change&& change) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<NetConfig>();
  config.setMac(kj::ArrayPtr<const kj::byte>(OWN.bytes));
  config.setBackend(NetConfig::Backend::PACKETS);
  Cable cable(SOCK_SEQPACKET);
  HandedFd fds[] = {{"socket", 0, cable.device}};
  change(config);
  virtio::testing::FakeRam ram;
  ProcessBench bench(ram, NET_PROFILE, "troupe-net", 3, fds,
                     message.getRoot<capnp::AnyPointer>().asReader());
  kj::runCatchingExceptions([&] { bench.describe(); });
  bench.disconnect();
  int status = bench.waitForExit();
  EXPECT_TRUE(WIFEXITED(status)) << status;
  return WEXITSTATUS(status);
}

TEST(NetJailed, JailIsAsTheProfileSaysInEachStage) {
  Bench bench;
  EXPECT_EQ(bench.differences(sandbox::Stage::READY), "");
  bench.start();
  EXPECT_EQ(bench.differences(sandbox::Stage::RUN), "");
}

TEST(NetJailed, ServesResetsAndServesAgainWithEachNumberOfPairs) {
  Bench bench;
  for (uint16_t round = 0; round < 8; round++) {
    bench.start();
    uint16_t pairs = 1 + round % PAIRS;
    bench.usePairs(pairs);
    for (uint16_t pair = 0; pair < pairs; pair++)
      bench.expectWell(pair, round);
    bench.usePairs(1);
    bench.expectWell(0, round + 100);
    bench.device->reset();
  }
}

TEST(NetJailed, ACommandForEachThingTheDriverMayAsk) {
  Bench bench;
  bench.start();
  auto& device = *bench.device;
  EXPECT_EQ(bench.command(device, virtio::NET_CTRL_RX, virtio::NET_CTRL_RX_PROMISC, uint8_t(0)),
            virtio::NET_OK);
  EXPECT_EQ(
      bench.command(device, virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_TABLE_SET, uint64_t(0)),
      virtio::NET_OK);
  EXPECT_EQ(bench.command(device, virtio::NET_CTRL_GUEST_OFFLOADS,
                          virtio::NET_CTRL_GUEST_OFFLOADS_SET, uint64_t(0)),
            virtio::NET_OK);
  EXPECT_EQ(bench.command(device, virtio::NET_CTRL_MAC, virtio::NET_CTRL_MAC_ADDR_SET, OTHER),
            virtio::NET_ERR);  // the host has fixed it
  bench.expectWell(0, 1);
}

// Its buffers are all in use, then it gets more of them: no frame is missing, none comes twice.
TEST(NetJailed, NET05_AFloodGoesOnAfterEachRefill) {
  Bench bench;
  bench.start();
  uint32_t sent = 0, arrived = 0;
  auto numbered = [](uint32_t i) {
    return testing::withHeader({}, frame(OWN, OTHER, 60 + i % 1400, i));
  };
  for (int round = 0; round < 100; round++) {
    while (bench.cables[0].peer.send(numbered(sent)))
      sent++;
    bench.offer(*bench.device, 8, 1536);
    for (int i = 0; i < 8; i++, arrived++)
      ASSERT_EQ(bench.waitForArrival(*bench.device).frame,
                frame(OWN, OTHER, 60 + arrived % 1400, arrived));
  }
}

TEST(NetJailed, RST01_ResetWhileBothRingsAreFull) {
  Bench bench;
  for (int round = 0; round < 20; round++) {
    bench.start();
    bench.usePairs(PAIRS);
    for (uint16_t pair = 0; pair < PAIRS; pair++) {
      for (int i = 0; i < 64; i++)
        bench.send(*bench.device, frame(OTHER, OWN, 1000, i), pair);
      bench.offer(*bench.device, 64, 1536, pair);
    }
    bench.device->reset();
    for (auto& cable : bench.cables)
      while (cable.peer.receive() != nullptr) {
      }
  }
}

// Each of the cases that transmit_test, receive_test and control_queue_test have one by one.
TEST(NetJailed, NET01_NET02_NET03_NET04_NET06_HostileInputIsAnsweredAndItServesOn) {
  Bench bench;
  for (int round = 0; round < 3; round++) {
    bench.start();
    auto& device = *bench.device;
    std::mt19937_64 random(round);
    for (int i = 0; i < 500; i++) {
      virtio::NetHeader header;
      uint64_t words[2] = {random(), random()};
      memcpy(&header, words, sizeof(header));
      if (i % 2) header.gsoType %= 8;
      auto bytes = frame(OTHER, i % 3 ? OWN : OTHER, 14 + random() % 3000, i);
      if (i % 5 == 0) memcpy(bytes.begin() + 12, words, 2);
      bench.send(device, header, bytes);
      bench.waitForSent(device, 1);
      // As much from the other side.
      auto message = testing::withHeader(header, bytes);
      bench.cables[0].peer.send(message.slice(0, i % 7 ? message.size() : random() % 40));
      if (i == 0) bench.offer(device, 16, 12 + 700 * round);
      while (bench.cables[0].peer.receive() != nullptr) {
      }
      KJ_IF_MAYBE (arrival, bench.takeArrival()) {
        bench.offer(device, arrival->written.size(), 2048);
      }
    }
    for (int commandClass = 0; commandClass < 7; commandClass++) {
      for (int number = 0; number < 4; number++) {
        uint64_t data[20];
        for (uint64_t& word : data)
          word = random();
        bench.command(device, commandClass, number,
                      kj::arrayPtr(data, 20).asBytes().slice(0, random() % 160).asConst());
      }
    }
    device.reset();
    while (bench.cables[0].peer.receive() != nullptr) {
    }
    bench.start();
    bench.expectWell(0, round);
    device.reset();
  }
  EXPECT_EQ(bench.device->host.resetsAsked, 0);
}

// A second vCPU writes random words all over a ring, the indices included, while frames move and
// the device is reset and started.
TEST(NetJailed, TOC02_RacingWriterOfTheWholeRingHarmsNothing) {
  using virtio::testing::FakeRam;
  for (uint16_t queue : {0, 1, 2}) {
    Bench bench(testing::FEATURES | testing::OFFLOADS);
    std::atomic<bool> over{false};
    kj::MutexGuarded<virtio::testing::FakeDriver*> target(nullptr);
    auto aimAt = [&](virtio::testing::FakeDriver* driver) { *target.lockExclusive() = driver; };
    std::thread vcpu([&] {
      std::mt19937_64 random(1);
      while (!over) {
        auto held = target.lockExclusive();
        auto driver = *held;
        if (driver == nullptr) continue;
        uint16_t flags = random() % 8;
        uint64_t address = random() % 2 ? random() : random() % (65 * FakeRam::MIB);
        driver->writeDescriptor(
            random() % 64, {address, uint32_t(random() % 5 ? random() % 4096 : random()), flags,
                            uint16_t(random() % 65)});
        driver->writeAvailable(random() % 64, random() % 65);
        driver->writeAvailableIndex(random() % 4 ? driver->usedIndex() + random() % 64 : random());
        driver->writeUsedEvent(random());
      }
    });
    {
      KJ_DEFER({
        over = true;
        vcpu.join();
      });
      for (int round = 0; round < 100; round++) {
        bench.start();
        aimAt(queue == 0   ? &bench.receiver()
              : queue == 1 ? &bench.transmitter()
                           : &bench.control());
        for (int i = 0; i < 20; i++) {
          bench.cables[0].peer.send(testing::withHeader({}, frame(OWN, OTHER, 1000, i)));
          bench.device->kick(queue);
        }
        bench.device->describe();
        aimAt(nullptr);
        bench.device->reset();
        while (bench.cables[0].peer.receive() != nullptr) {
        }
      }
    }
  }
}

TEST(NetJailed, AConfigurationThatCannotBeIsALastWordAndNoDevice) {
  EXPECT_EQ(statusWith([](NetConfig::Builder) {}), 0);
  EXPECT_EQ(statusWith([](NetConfig::Builder config) { config.setMac(nullptr); }), 1);
  EXPECT_EQ(statusWith([](NetConfig::Builder config) {
              config.setMac(kj::ArrayPtr<const kj::byte>(testing::BROADCAST.bytes));
            }),
            1);
  EXPECT_EQ(statusWith([](NetConfig::Builder config) { config.setMtu(1); }), 1);
  EXPECT_EQ(statusWith([](NetConfig::Builder config) { config.setQueuePairs(0); }), 1);
  EXPECT_EQ(statusWith([](NetConfig::Builder config) { config.setQueuePairs(2); }), 1);
  EXPECT_EQ(
      statusWith([](NetConfig::Builder config) { config.setBackend(NetConfig::Backend::STREAM); }),
      1);
  EXPECT_EQ(
      statusWith([](NetConfig::Builder config) { config.setBackend(NetConfig::Backend::TAP); }), 1);
  EXPECT_EQ(statusWith([](NetConfig::Builder config) { config.setCapture(true); }), 1);
  EXPECT_EQ(statusWith(
                [](NetConfig::Builder config) { config.initTransmitRate().setFramesPerSecond(1); }),
            1);
}

TEST(NetJailed, EndsWhenTheBrokerIsGone) {
  Bench bench;
  bench.start();
  bench.device->disconnect();
  int status = bench.device->waitForExit();
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace troupe::net
