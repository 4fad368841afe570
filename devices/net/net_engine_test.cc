// The device as its broker sees it.
#include "devices/net/net_engine.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <time.h>

#include <atomic>
#include <cstring>

#include "devices/net/testing/net_bench.h"

namespace troupe::net {
namespace {

using testing::frame;
using testing::NetBench;
using testing::OTHER;
using testing::OWN;
using virtio::testing::FakeRam;

kj::Duration cpuTime() {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return used.tv_sec * kj::SECONDS + used.tv_nsec * kj::NANOSECONDS;
}

void setLink(NetBench& bench, bool up) {
  auto request = bench.device.device().hostEventRequest();
  request.initEvent().setNetLink(up);
  bench.device.await(request.send().ignoreResult());
}

void askToAnnounce(NetBench& bench) {
  auto request = bench.device.device().hostEventRequest();
  request.initEvent().setNetAnnounce();
  bench.device.await(request.send().ignoreResult());
}

// A host that does not come back from what it is given to send.
class EndlessHost final: public Backend {
 public:
  int fd() const override { return event; }
  size_t batch() const override { return 1; }
  Sent send(kj::ArrayPtr<const OutgoingFrame> frames) override {
    while (isEndless)
      hasBegun = true;
    return {Outcome::DONE, frames.size()};
  }
  Received receive(const IncomingRoom&) override { return {Outcome::LATER, 0}; }
  bool hasInput() const override { return false; }

  std::atomic<bool> isEndless{false};
  std::atomic<bool> hasBegun{false};

 private:
  kj::AutoCloseFd event{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

struct ShownEngine {
  explicit ShownEngine(Backend& host)
      : device(driver.ram, [&](kj::AsyncIoContext& io) {
          NetEngine::Host hosts;
          hosts.backends = kj::heapArray<Backend*>({&host});
          NetOptions options;
          options.mac = OWN;
          auto engine = kj::heap<NetEngine>(io.unixEventPort, kj::mv(hosts), options, process);
          engine->showIn(signs);
          return engine;
        }) {
    device.attach();
    driver.activate(device, testing::FEATURES);
  }

  alignas(64) kj::byte memory[virtio::VitalSigns::BYTES] = {};
  virtio::VitalSigns signs{memory, 0};
  testing::NetDriver driver;
  testing::OpenProcess process;
  virtio::testing::DeviceBench device;
};

TEST(NetEngine, AThreadThatGetsNowhereIsSeenFromOutside) {
  EndlessHost host;
  ShownEngine engine(host);
  auto sign = [&] { return engine.signs.sign(1); };
  host.isEndless = true;
  engine.driver.send(engine.device, frame(OTHER, OWN, 300, 1));
  engine.device.waitUntil([&] { return host.hasBegun.load(); });
  auto before = sign();
  host.hasBegun = false;
  engine.device.waitUntil([&] { return host.hasBegun.load(); });
  EXPECT_EQ(sign(), before);
  host.isEndless = false;
  engine.device.waitUntil([&] { return sign() != before; });
  engine.device.reset();
}

// One that takes its time for each frame, and looks at what its thread shows by then.
class LookingHost final: public Backend {
 public:
  int fd() const override { return event; }
  size_t batch() const override { return 1; }
  Sent send(kj::ArrayPtr<const OutgoingFrame> frames) override {
    if (frames.size() == 0) return {Outcome::DONE, 0};
    while (count == 0 && !goesOn) {
    }
    if (count < kj::size(words)) words[count] = *word;
    count++;
    return {Outcome::DONE, frames.size()};
  }
  Received receive(const IncomingRoom&) override { return {Outcome::LATER, 0}; }
  bool hasInput() const override { return false; }

  const uint64_t* word = nullptr;
  uint64_t words[8] = {};
  std::atomic<uint32_t> count{0};
  std::atomic<bool> goesOn{false};

 private:
  kj::AutoCloseFd event{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

TEST(NetEngine, ALongTurnShowsThatItGetsOn) {
  LookingHost host;
  ShownEngine engine(host);
  host.word = &engine.signs.word(1);
  // All are there before the first of them is sent, and so are of one turn.
  for (uint8_t i = 0; i < kj::size(host.words); i++)
    engine.driver.send(engine.device, frame(OTHER, OWN, 300, i));
  host.goesOn = true;
  engine.device.waitUntil([&] { return host.count == kj::size(host.words); });
  for (size_t i = 1; i < kj::size(host.words); i++)
    EXPECT_NE(host.words[i], host.words[i - 1]) << i;
  engine.device.reset();
}

TEST(NetEngine, DescribesItself) {
  NetBench::Options options;
  options.pairs = 3;
  options.device.mtu = 9000;
  options.features |= virtio::NET_F_MQ;
  NetBench bench(options);
  auto response = bench.device.describe();
  auto info = response.getInfo();
  EXPECT_EQ(info.getDeviceType(), virtio::ID_NETWORK);
  ASSERT_EQ(info.getQueueSizes().size(), 7);
  EXPECT_EQ(info.getQueueSizes()[6], CONTROL_QUEUE_SIZE);
  uint64_t features = info.getFeatures();
  for (uint64_t bit : {virtio::NET_F_MAC, virtio::NET_F_MTU, virtio::NET_F_STATUS,
                       virtio::NET_F_MRG_RXBUF, virtio::NET_F_CTRL_VQ, virtio::NET_F_MQ})
    EXPECT_TRUE(features & bit) << bit;
  EXPECT_FALSE(features & virtio::NET_F_CSUM);  // a host without headers
  virtio::NetConfigSpace config;
  ASSERT_EQ(info.getConfig().size(), sizeof(config));
  memcpy(&config, info.getConfig().begin(), sizeof(config));
  EXPECT_EQ(memcmp(config.mac, OWN.bytes, 6), 0);
  EXPECT_EQ(config.status, virtio::NET_S_LINK_UP);
  EXPECT_EQ(config.maxVirtqueuePairs, 3);
  EXPECT_EQ(config.mtu, 9000);
}

TEST(NetEngine, CFG01_NothingOfTheConfigurationCanBeWritten) {
  NetBench bench;
  auto response = bench.device.describe();
  for (kj::byte mask : response.getInfo().getConfigWriteMask())
    EXPECT_EQ(mask, 0);
  const kj::byte bytes[12] = {1};
  for (uint32_t offset = 0; offset <= 12; offset++)
    bench.device.writeConfig(offset, kj::arrayPtr(bytes, 12 - offset));
  EXPECT_ANY_THROW(bench.device.writeConfig(13, nullptr));
  EXPECT_ANY_THROW(bench.device.writeConfig(1, bytes));
}

TEST(NetEngine, OptionsThatCannotBeAreRefused) {
  auto refused = [](auto change) {
    NetBench::Options options;
    change(options);
    auto problem = kj::runCatchingExceptions([&] { NetBench bench(options); });
    KJ_IF_MAYBE (exception, problem) {
      return kj::str(exception->getDescription().slice(0));
    }
    return kj::str("");
  };
  using Options = NetBench::Options;
  EXPECT_NE(strstr(refused([](Options& o) { o.device.mtu = 67; }).cStr(), "TRP-net-103"), nullptr);
  EXPECT_NE(strstr(refused([](Options& o) { o.device.receiveRate.bytesPerSecond = 1; }).cStr(),
                   "TRP-net-104"),
            nullptr);
  EXPECT_NE(strstr(refused([](Options& o) { o.pairs = MAX_PAIRS + 1; }).cStr(), "TRP-net-102"),
            nullptr);
}

TEST(NetEngine, ALinkThatIsPulledPassesNothingAndSaysSo) {
  NetBench bench;
  bench.offer(4, 1536);
  setLink(bench, false);
  EXPECT_EQ(bench.status(), 0);
  bench.peer().send(frame(OWN, OTHER, 60, 1));
  bench.send(frame(OTHER, OWN, 60, 1));
  bench.waitForSent(1);
  bench.device.settle();
  EXPECT_TRUE(bench.peer().receive() == nullptr);
  EXPECT_TRUE(bench.takeArrival() == nullptr);
  setLink(bench, true);
  EXPECT_EQ(bench.status(), virtio::NET_S_LINK_UP | virtio::NET_S_ANNOUNCE);
  bench.peer().send(frame(OWN, OTHER, 60, 2));
  EXPECT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 60, 2));
  bench.send(frame(OTHER, OWN, 60, 2));
  EXPECT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 60, 2));
}

TEST(NetEngine, AnAnnouncementIsAskedForUntilTheDriverSaysItDid) {
  NetBench bench;
  askToAnnounce(bench);
  EXPECT_EQ(bench.status(), virtio::NET_S_LINK_UP | virtio::NET_S_ANNOUNCE);
  askToAnnounce(bench);
  EXPECT_EQ(bench.device.host.configChanges.size(), 1);
  EXPECT_EQ(bench.command(virtio::NET_CTRL_ANNOUNCE, virtio::NET_CTRL_ANNOUNCE_ACK,
                          kj::ArrayPtr<const kj::byte>()),
            virtio::NET_OK);
  EXPECT_EQ(bench.status(), virtio::NET_S_LINK_UP);
}

TEST(NetEngine, ADriverThatCannotAnnounceIsNotAsked) {
  NetBench::Options options;
  options.features &= ~virtio::NET_F_GUEST_ANNOUNCE;
  NetBench bench(options);
  askToAnnounce(bench);
  EXPECT_EQ(bench.device.host.configChanges.size(), 0);
}

TEST(NetEngine, AnEventWhileNoDriverIsThereIsToldToTheNext) {
  NetBench::Options options;
  options.activated = false;
  NetBench bench(options);
  setLink(bench, false);
  EXPECT_EQ(bench.device.host.configChanges.size(), 0);
  bench.activate(bench.device, testing::FEATURES);
  bench.device.settle();
  EXPECT_EQ(bench.status(), 0);
}

TEST(NetEngine, EventsOfOtherDevicesAreIgnored) {
  NetBench bench;
  bench.device.diskSize(4096);
  bench.device.consoleSize(80, 25);
  EXPECT_EQ(bench.device.host.configChanges.size(), 0);
}

TEST(NetEngine, RST01_ResetWithFramesUnderWayInBothDirections) {
  NetBench bench;
  for (int round = 0; round < 30; round++) {
    bench.offer(100, 1536);
    for (int i = 0; i < 100; i++) {
      bench.peer().send(frame(OWN, OTHER, 1000, i));
      bench.send(frame(OTHER, OWN, 1000, i));
    }
    bench.device.reset();
    uint16_t sent = bench.transmitter().usedIndex(), arrived = bench.receiver().usedIndex();
    bench.device.settle();
    EXPECT_EQ(bench.transmitter().usedIndex(), sent);
    EXPECT_EQ(bench.receiver().usedIndex(), arrived);
    while (bench.peer().receive() != nullptr) {
    }
    bench.activate(bench.device, testing::FEATURES);
  }
  EXPECT_EQ(bench.device.host.resetsAsked, 0);
}

TEST(NetEngine, RST04_KicksWhileInactiveTouchNothing) {
  NetBench bench;
  bench.device.reset();
  bench.send(frame(OTHER, OWN, 60, 1));
  for (uint16_t queue : {0, 1, 2})
    bench.device.kick(queue);
  bench.device.settle();
  EXPECT_EQ(bench.transmitter().usedIndex(), 0);
  EXPECT_TRUE(bench.peer().receive() == nullptr);
}

TEST(NetEngine, RST04_QueuesThatAreNotEnabledAreLeftAlone) {
  NetBench::Options options;
  options.activated = false;
  NetBench bench(options);
  const uint16_t some[][1] = {{0}, {1}, {2}};
  for (auto& queues : some) {
    bench.activate(bench.device, testing::FEATURES);
    bench.device.reset();
    bench.activateSome(bench.device, testing::FEATURES, queues);
    for (uint16_t queue : {0, 1, 2})
      bench.device.kick(queue);
    bench.peer().send(frame(OWN, OTHER, 60, 1));
    bench.device.settle();
    bench.device.reset();
  }
  bench.activate(bench.device, testing::FEATURES);
  EXPECT_EQ(bench.device.host.resetsAsked, 0);
}

TEST(NetEngine, VQ03_BrokenRingsNeedAResetWhichHeals) {
  for (uint16_t queue : {0, 1}) {
    NetBench bench;
    (queue == 0 ? bench.receiver() : bench.transmitter()).makeAvailable(0xffff);
    bench.device.kick(queue);
    bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
    bench.device.kick(queue);
    bench.device.settle();
    EXPECT_EQ(bench.device.host.resetsAsked, 1);
    bench.device.reset();
    bench.activate(bench.device, testing::FEATURES);
    bench.send(frame(OTHER, OWN, 60, 1));
    EXPECT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 60, 1));
  }
}

TEST(NetEngine, VQ02_EmptyChainsAreReturnedOrNeedAReset) {
  NetBench bench;
  auto& driver = bench.transmitter();
  driver.add({virtio::testing::readable(0x30000, 0)});
  if (driver.shouldKick()) bench.device.kick(1);
  bench.waitForSent(1);
  bench.receiver().add({virtio::testing::writable(0x30000, 0)});
  bench.device.kick(0);
  bench.device.waitUntil([&] { return bench.device.host.resetsAsked == 1; });
}

// A driver that notifies for nothing costs a look at the ring each time, no more.
TEST(NetEngine, VQ13_NotificationStorm) {
  NetBench bench;
  for (int i = 0; i < 100000; i++)
    for (uint16_t queue : {0, 1, 2})
      bench.device.kick(queue);
  bench.send(frame(OTHER, OWN, 60, 1));
  EXPECT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 60, 1));
}

TEST(NetEngine, VQ13_WithoutEventIndexItWorksToo) {
  NetBench::Options options;
  options.features &= ~virtio::F_EVENT_IDX;
  options.device.spinMicros = 0;
  NetBench bench(options);
  for (int i = 0; i < 200; i++) {
    bench.send(frame(OTHER, OWN, 60, i));
    bench.device.kick(1);
    EXPECT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 60, i));
    bench.waitForSent(1);
  }
}

// A thread that sleeps is woken for each of both directions, and misses nothing between.
TEST(NetEngine, ThousandsOfSingleFramesWakeItEachTime) {
  for (uint32_t spin : {0, 50}) {
    NetBench::Options options;
    options.device.spinMicros = spin;
    NetBench bench(options);
    for (int i = 0; i < 2000; i++) {
      bench.send(frame(OTHER, OWN, 60, i));
      ASSERT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 60, i));
      bench.waitForSent(1);
      bench.offer(1, 2048);
      bench.peer().send(frame(OWN, OTHER, 60, i));
      ASSERT_EQ(bench.waitForArrival().frame, frame(OWN, OTHER, 60, i));
    }
  }
}

TEST(NetEngine, AnIdleDeviceSleeps) {
  NetBench bench;
  bench.offer(10, 2048);
  bench.device.settle();
  auto before = cpuTime();
  bench.device.io.provider->getTimer().afterDelay(1 * kj::SECONDS).wait(bench.device.io.waitScope);
  EXPECT_LT(cpuTime() - before, 50 * kj::MILLISECONDS);
}

TEST(NetEngine, VQ11_AMillionFramesThatAreDroppedLeaveNothingBehind) {
  NetBench bench;
  auto& driver = bench.transmitter();
  auto runt = driver.readableBuffer(testing::withHeader({}, frame(OTHER, OWN, 14, 0)).slice(0, 20));
  for (uint32_t done = 0; done < 1000000;) {
    for (int i = 0; i < 200; i++)
      driver.add({runt});
    if (driver.shouldKick()) bench.device.kick(1);
    for (int i = 0; i < 200; i++, done++)
      while (driver.takeUsed() == nullptr) {
      }
  }
  bench.send(frame(OTHER, OWN, 60, 1));
  EXPECT_EQ(bench.waitForFrame(), frame(OTHER, OWN, 60, 1));
}

}  // namespace
}  // namespace troupe::net
