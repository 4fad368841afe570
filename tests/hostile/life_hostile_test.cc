// Drivers that change their mind, everything at once, or never stop, against every device as it
// ships, in its jail.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "devices/virtio/wire.h"
#include "tests/hostile/devices.h"
#include "tests/hostile/ring_guest.h"

namespace troupe::hostile {
namespace {

using virtio::Descriptor;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;

using Clock = std::chrono::steady_clock;

class LifeHostile: public ::testing::TestWithParam<const char*> {};
INSTANTIATE_ON_EVERY_DEVICE(LifeHostile);

// A vCPU of its own: does `step` again and again until it goes.
class OtherVcpu {
 public:
  template <typename Step>
  explicit OtherVcpu(Step step)
      : thread([this, step]() mutable {
          while (!over)
            step();
        }) {}
  ~OtherVcpu() {
    over = true;
    thread.join();
  }
  KJ_DISALLOW_COPY(OtherVcpu);

 private:
  std::atomic<bool> over{false};
  std::thread thread;
};

// As a driver would that always has a ring full of useless requests, and never waits.
TEST_P(LifeHostile, VQ11_AMillionUselessRequestsLeaveNothingBehind) {
  RingGuest guest(GetParam());
  guest.activate();
  FakeDriver& driver = guest.driver();
  uint16_t queue = guest.goodQueue();
  for (uint16_t i = 0; i < driver.size(); i++) {
    driver.writeDescriptor(i, {VICTIM, 0, uint16_t(i % 2 ? virtio::DESC_F_WRITE : 0), 0});
    driver.writeAvailable(i, i);
  }
  // A ring of eight goes round at every turn of the scheduler at worst.
  uint32_t rounds = kj::min(1000000u / driver.size() + 1, 20000u);
  auto deadline = Clock::now() + std::chrono::seconds(120);
  for (uint32_t round = 1; round <= rounds; round++) {
    uint16_t index = round * driver.size();
    driver.writeAvailableIndex(index);
    guest.process->kick(queue);
    guest.waitBusily([&] { return driver.usedIndex() == index || Clock::now() > deadline; });
    ASSERT_EQ(driver.usedIndex(), index);
  }
  RecordProperty("requests", int(rounds * driver.size()));
  EXPECT_FALSE(guest.askedForReset());
  guest.reset();
  guest.expectUntouched();
  guest.expectNoGrowth();
}

// Every byte that is not the ring's, or a buffer's, is as it was; and no answer counts more bytes
// than were stored: what was not is poison still.
TEST_P(LifeHostile, VQ12_NothingButWhatIsWritableIsWritten) {
  RingGuest guest(GetParam());
  for (bool indirect : {false, true}) {
    guest.activate();
    FakeDriver& driver = guest.driver();
    for (int i = 0; i < 50; i++) {
      kj::Vector<Buffer> buffers;
      for (Buffer buffer : guest.goodRequest()) {
        if (!buffer.writable) {
          buffers.add(buffer);
          continue;
        }
        auto bytes = guest.ram.bytes(buffer.address, buffer.length);
        memset(bytes.begin(), virtio::testing::FakeRam::POISON, bytes.size());
        buffers.add(buffer);
      }
      if (indirect) {
        driver.addIndirect(buffers);
      } else {
        driver.add(buffers);
      }
      auto used = guest.process->waitForUsed(guest.goodQueue(), driver);
      EXPECT_LE(used.written, guest.goodWritable());
    }
    guest.reset();
  }
  guest.expectUntouched();
}

TEST_P(LifeHostile, VQ13_EventWordsAtRandomAndAStormOfNotifications) {
  RingGuest guest(GetParam());
  constexpr int KICKS = 1000000;
  uint16_t queue = guest.goodQueue();
  for (bool eventIndex : {false, true}) {
    uint64_t features = guest.features();
    guest.activate(eventIndex ? features : features & ~virtio::F_EVENT_IDX);
    FakeDriver& driver = guest.driver();
    auto begin = Clock::now();
    std::atomic<int> kicks{0};
    int kickFd = guest.process->kickFd(queue);
    OtherVcpu storm([&, kickFd] {
      if (kicks.load() < KICKS) {
        eventfd_write(kickFd, 1);
        ++kicks;
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    std::mt19937 random(1);
    for (int i = 0; i < 500 || kicks < KICKS; i++) {
      driver.writeUsedEvent(random());
      driver.writeAvailableFlags(random());
      driver.add(guest.goodRequest());
      guest.process->waitForUsed(queue, driver);
      guest.process->describe();
    }
    std::chrono::duration<double> took = Clock::now() - begin;
    printf("%s: %.0f notifications a second\n", GetParam(), kicks / took.count());
    EXPECT_FALSE(guest.askedForReset());
    guest.reset();
  }
  guest.expectNoGrowth();
}

// A second vCPU writes words all over the ring, its indices, the request and its buffers, while
// requests are served and the device is reset and started: headers, lengths and addresses change
// before, between and behind the device's looks.
TEST_P(LifeHostile, TOC02_TOC03_ARacingVcpuHarmsNothing) {
  RingGuest guest(GetParam());
  uint16_t queue = guest.goodQueue();
  for (int round = 0; round < 20; round++) {
    guest.activate();
    FakeDriver& driver = guest.driver();
    auto request = guest.goodRequest();
    std::mt19937_64 random(round);
    OtherVcpu racer([&, random]() mutable {
      uint16_t size = driver.size();
      auto& buffer = request[random() % request.size()];
      bool good = random() % 2;
      Descriptor descriptor{
          good           ? buffer.address
          : random() % 3 ? random() % HIGH_END
                         : random(),
          good ? buffer.length : uint32_t(random() % 5 ? random() % 5000 : random()),
          uint16_t(random() % 8), uint16_t(random() % (size + 1))};
      driver.writeDescriptor(random() % size, descriptor);
      driver.writeAvailable(random() % size, random() % (size + 1));
      driver.writeUsedEvent(random());
      kj::byte* at = guest.ram.bytes(buffer.address, buffer.length).begin();
      __atomic_store_n(at + random() % buffer.length, kj::byte(random()), __ATOMIC_RELAXED);
    });
    for (int i = 0; i < 30; i++) {
      driver.writeAvailableIndex(random() % 8 ? driver.usedIndex() + random() % driver.size()
                                              : random());
      guest.process->kick(queue);
      guest.process->describe();
    }
    guest.reset();
  }
  guest.expectNoGrowth();
}

TEST_P(LifeHostile, RST01_ResetAndRenegotiationWithTheRingFull) {
  RingGuest guest(GetParam());
  uint16_t queue = guest.goodQueue();
  const uint64_t ring = virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
  for (int round = 0; round < 40; round++) {
    uint64_t tried =
        (round % 2 ? virtio::F_INDIRECT_DESC : 0) | (round % 4 / 2 ? virtio::F_EVENT_IDX : 0);
    uint64_t features = (guest.features() & ~ring) | (guest.features() & tried);
    guest.activate(features);
    FakeDriver& driver = guest.driver();
    uint32_t count = driver.size() / guest.goodRequest().size();
    if (features & virtio::F_INDIRECT_DESC) {
      count = driver.size();
      for (uint32_t i = 0; i < count; i++)
        driver.addIndirect(guest.goodRequest());
    } else {
      for (uint32_t i = 0; i < count; i++)
        driver.add(guest.goodRequest());
    }
    guest.process->kick(queue);
    guest.reset();
    // From here on the device touches nothing of it.
    uint16_t used = driver.usedIndex();
    EXPECT_LE(used, count);
    if (round % 10 == 0) guest.process->settle();
    EXPECT_EQ(driver.usedIndex(), used);
  }
  EXPECT_FALSE(guest.askedForReset());
  guest.expectUntouched();
  guest.expectNoGrowth();
}

TEST_P(LifeHostile, RST04_KicksWhenNobodyIsToBeServed) {
  RingGuest guest(GetParam());
  auto kickAll = [&] {
    for (uint16_t queue = 0; queue < guest.queueCount(); queue++)
      guest.process->kick(queue);
    guest.process->settle();
  };
  kickAll();  // before DRIVER_OK
  guest.activate();
  guest.reset();
  FakeDriver& left = guest.driver();
  left.add(guest.goodRequest());
  kickAll();
  EXPECT_EQ(left.usedIndex(), 0) << "after a reset";
  // Only the good queue is enabled, then all but that one.
  guest.activate(guest.features(), 1u << guest.goodQueue());
  for (uint16_t queue = 0; queue < guest.queueCount(); queue++)
    if (queue != guest.goodQueue()) guest.driver(queue).add(guest.goodRequest());
  kickAll();
  for (uint16_t queue = 0; queue < guest.queueCount(); queue++)
    EXPECT_EQ(guest.driver(queue).usedIndex(), 0) << "not enabled";
  guest.reset();
  guest.activate(guest.features(), ~(1u << guest.goodQueue()));
  guest.driver().add(guest.goodRequest());
  kickAll();
  EXPECT_EQ(guest.driver().usedIndex(), 0);
  EXPECT_FALSE(guest.askedForReset());
  guest.reset();
  guest.expectUntouched();
  guest.expectNoGrowth();
}

// Whatever the transport lets a driver write reaches the device like this; past the end it is
// refused, as no sound broker sends it.
TEST_P(LifeHostile, CFG01_ConfigurationWritesAtEveryOffsetOfEveryWidth) {
  RingGuest guest(GetParam());
  guest.activate();
  auto before = guest.process->describe();
  size_t size = before.getInfo().getConfig().size();
  const kj::byte ones[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  for (uint32_t offset = 0; offset <= size + 9; offset++) {
    for (size_t width : {1, 2, 4, 8}) {
      auto refused = kj::runCatchingExceptions(
          [&] { guest.process->writeConfig(offset, kj::arrayPtr(ones, width)); });
      EXPECT_EQ(refused != nullptr, offset + width > size) << offset << " " << width;
    }
  }
  for (uint32_t offset : {0x7fffffffu, 0xfffffff8u, 0xffffffffu}) {
    EXPECT_TRUE(kj::runCatchingExceptions(
                    [&] { guest.process->writeConfig(offset, kj::arrayPtr(ones, 8)); }) != nullptr);
  }
  auto after = guest.process->describe();
  EXPECT_TRUE(after.getInfo().getConfig() == before.getInfo().getConfig());
  guest.reset();
  guest.expectUntouched();
  guest.expectNoGrowth();
}

}  // namespace
}  // namespace troupe::hostile
