// The actor as shipped, killed again and again amid requests: its successors finish each of them
// once, with this test as troupe, broker and driver. How often: devices/virtio/testing/kills.h.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <vector>

#include "devices/balloon/testing/balloon_bench.h"
#include "devices/virtio/testing/kills.h"
#include "sandbox/shared_memory.h"

namespace troupe::balloon {
namespace {

using virtio::testing::FakeHost;

constexpr uint64_t JOURNAL_BYTES = 16 << 20;
constexpr uint64_t FIRST_PAGE = 8 * MIB / PAGE_BYTES;
constexpr uint32_t PAGES = 32 * MIB / PAGE_BYTES;  // that the guest uses, reports or inflates
constexpr uint32_t DEPTH = 24;                     // chains of each kind under way
constexpr uint32_t MOST_IN_CHAIN = 200;

// A guest that knows what each of its pages holds, and to which chain it belongs.
class CheckingDriver {
 public:
  explicit CheckingDriver(uint32_t seed) : random(seed), owners(PAGES, IN_USE) {
    for (uint32_t page = 0; page < PAGES; page++)
      write(page);
    for (uint32_t i = 0; i < 3 * DEPTH; i++)
      arrays.push_back(ram.allocate(MOST_IN_CHAIN * sizeof(uint32_t)));
    for (int i = 0; i < 2; i++)
      statistics[i] = driver.pages({0, 0, 0, 0, 0});
  }

  void begin() { driver[STATISTICS].add({statistics[0]}); }

  // Keeps some chains of each kind on their way.
  void fill(JailedBalloon& device) {
    while (underWay[INFLATE].size() < DEPTH)
      if (!send(INFLATE, IN_USE)) break;
    while (underWay[DEFLATE].size() < DEPTH)
      if (!send(DEFLATE, INFLATED)) break;
    while (underWay[REPORT].size() < DEPTH)
      if (!report()) break;
    for (uint16_t queue : {INFLATE, DEFLATE, REPORT})
      if (driver[queue].shouldKick()) device.kick(queue);
  }

  // Takes what has been answered. How many.
  uint64_t check() {
    uint64_t before = answered;
    for (uint16_t queue : {INFLATE, DEFLATE, REPORT}) {
      for (;;) {
        auto used = driver[queue].takeUsed();
        KJ_IF_MAYBE (one, used) {
          finish(queue, one->head);
        } else {
          break;
        }
      }
    }
    return answered - before;
  }

  // The statistics queue: a buffer that comes back is filled anew.
  bool answerStatistics(JailedBalloon& device) {
    KJ_IF_MAYBE (used, driver[STATISTICS].takeUsed()) {
      EXPECT_EQ(used->written, 0u);
      driver[STATISTICS].add({statistics[0]});
      device.kick(STATISTICS);
      return true;
    }
    return false;
  }

  bool isIdle() const {
    return underWay[INFLATE].empty() && underWay[DEFLATE].empty() && underWay[REPORT].empty();
  }
  uint64_t totalAnswered() const { return answered; }

  // What the guest uses holds what it wrote there.
  void expectOwnPages() {
    uint32_t lost = 0;
    for (uint32_t page = 0; page < PAGES; page++)
      lost += owners[page] == IN_USE && !isWritten(page);
    EXPECT_EQ(lost, 0u) << "pages that the guest uses were given back";
  }

  FakeRam ram{64 * MIB};
  BalloonDriver driver{ram};
  FakeHost host;  // what the broker remembers beyond a process

 private:
  enum Owner : int { IN_USE = -1, INFLATED = -2, WITH_DEVICE = -3 };
  struct Sent {
    std::vector<uint32_t> pages;
    uint64_t array;
  };

  kj::ArrayPtr<kj::byte> bytes(uint32_t page) {
    return ram.bytes((FIRST_PAGE + page) * PAGE_BYTES, PAGE_BYTES);
  }
  void write(uint32_t page) { memset(bytes(page).begin(), 1 + page % 251, 64); }
  bool isWritten(uint32_t page) { return bytes(page)[63] == 1 + page % 251; }

  std::vector<uint32_t> choose(Owner owner, uint32_t count) {
    std::vector<uint32_t> chosen;
    for (uint32_t tries = 0; tries < 4 * count && chosen.size() < count; tries++) {
      uint32_t page = random() % PAGES;
      if (owners[page] != owner) continue;
      owners[page] = WITH_DEVICE;
      chosen.push_back(page);
    }
    return chosen;
  }

  bool send(uint16_t queue, Owner owner) {
    auto pages = choose(owner, 1 + random() % MOST_IN_CHAIN);
    if (pages.empty() || arrays.empty()) return false;
    uint64_t array = arrays.back();
    arrays.pop_back();
    auto numbers =
        reinterpret_cast<uint32_t*>(ram.bytes(array, pages.size() * sizeof(uint32_t)).begin());
    for (size_t i = 0; i < pages.size(); i++)
      numbers[i] = htole32(FIRST_PAGE + pages[i]);
    uint32_t length = pages.size() * sizeof(uint32_t);
    uint16_t head = driver[queue].add({virtio::testing::readable(array, length)});
    EXPECT_TRUE(underWay[queue].emplace(head, Sent{pages, array}).second);
    return true;
  }

  // Free pages, as buffers of a page each.
  bool report() {
    auto pages = choose(IN_USE, 1 + random() % 4);
    if (pages.empty()) return false;
    kj::Vector<Buffer> buffers;
    for (uint32_t page : pages)
      buffers.add(virtio::testing::writable((FIRST_PAGE + page) * PAGE_BYTES, PAGE_BYTES));
    uint16_t head = driver[REPORT].add(buffers);
    EXPECT_TRUE(underWay[REPORT].emplace(head, Sent{pages, 0}).second);
    return true;
  }

  void finish(uint16_t queue, uint32_t head) {
    auto found = underWay[queue].find(head);
    ASSERT_NE(found, underWay[queue].end()) << "answered twice";
    if (found->second.array != 0) arrays.push_back(found->second.array);
    for (uint32_t page : found->second.pages) {
      if (queue != DEFLATE) {
        EXPECT_EQ(bytes(page)[63], 0) << "not given back";
      }
      owners[page] = queue == INFLATE ? INFLATED : IN_USE;
      if (queue != INFLATE) write(page);
    }
    underWay[queue].erase(found);
    ++answered;
  }

  std::mt19937 random;
  std::vector<int> owners;  // of each page
  std::vector<uint64_t> arrays;
  Buffer statistics[2];
  std::map<uint32_t, Sent> underWay[QUEUES];
  uint64_t answered = 0;
};

// One process of the device.
class Life {
 public:
  Life(CheckingDriver& guest, int journal, bool isFirst)
      : guest(guest), device(guest.ram, {{"journal", 0, journal}}) {
    numPages = numPagesOf(device.describe());
    device.attachReadOnly();
    auto request = device.activateRequest(
        FEATURES, {&guest.driver.queues[0], &guest.driver.queues[1], &guest.driver.queues[2],
                   &guest.driver.queues[3], &guest.driver.queues[4]});
    if (!isFirst) {
      request.setResumed(true);
      auto queues = request.getQueues();
      for (size_t i = 0; i < guest.host.usedRings.size(); i++)
        queues[i].setReturned(guest.host.usedRings[i].next);
      device.host.usedRings = kj::mv(guest.host.usedRings);
    }
    device.await(request.send().ignoreResult());
  }

  // What it has said to the broker by then has been done.
  void kill() {
    device.child().kill();
    device.waitForExit();
    guest.host.usedRings = kj::mv(device.host.usedRings);
    EXPECT_EQ(device.host.resetsAsked, 0u);
  }

  CheckingDriver& guest;
  JailedBalloon device;
  uint32_t numPages;  // that it asked for when it began

 private:
  static uint32_t numPagesOf(capnp::Response<Device::DescribeResults> info) {
    uint32_t pages;
    memcpy(&pages, info.getInfo().getConfig().begin(), sizeof(pages));
    return le32toh(pages);
  }
};

TEST(BalloonKilled, EachChainIsReturnedOnceWhereverItIsKilled) {
  auto journal = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  CheckingDriver guest(seed);
  std::mt19937 random(seed + 1);
  guest.begin();
  using Clock = std::chrono::steady_clock;
  uint64_t givenBack = 0;

  virtio::testing::Kills kills;
  bool isLast = false;
  for (uint32_t number = 0; !isLast && !::testing::Test::HasFailure(); number++) {
    isLast = !kills.takeOne();
    Life life(guest, journal.writable, number == 0);
    auto& device = life.device;
    EXPECT_EQ(life.numPages, number);  // as the one before was told
    auto until = Clock::now() + std::chrono::microseconds(random() % 3000);
    device.waitUntil([&] {
      if (!isLast) guest.fill(device);
      guest.check();
      if (::testing::Test::HasFailure()) return true;
      return isLast ? guest.isIdle() : Clock::now() >= until;
    });
    device.balloonTarget(number + 1);
    if (number % 10 == 0) {
      auto asked = device.device().reportRequest().send();
      bool isAnswered = false;
      auto answer = asked
                        .then([&](capnp::Response<Device::ReportResults>&& response) {
                          auto balloon = response.getReport().getBalloon();
                          EXPECT_EQ(balloon.getTargetPages(), number + 1);
                          EXPECT_TRUE(balloon.getHasStatistics());
                          EXPECT_GE(balloon.getGivenBackBytes(), givenBack);
                          givenBack = balloon.getGivenBackBytes();
                          isAnswered = true;
                        })
                        .eagerlyEvaluate(nullptr);
      device.waitUntil([&] {
        guest.answerStatistics(device);
        guest.check();
        return isAnswered;
      });
    }
    if (!isLast) guest.fill(device);
    life.kill();
    guest.check();
  }
  guest.expectOwnPages();
  EXPECT_GT(guest.totalAnswered(), 0u);
  EXPECT_GT(givenBack, 0u);
  std::cout << kills.count() << " kills, " << guest.totalAnswered() << " chains returned, "
            << givenBack / MIB << " MiB\n";
}

// Whoever comes next believes nothing that contradicts what the broker has stored.
TEST(BalloonKilled, BRK10_AJournalThatContradictsTheBrokerAsksForAReset) {
  auto journal = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
  CheckingDriver guest(1);
  guest.begin();
  {
    Life life(guest, journal.writable, true);
    guest.fill(life.device);
    life.device.waitUntil([&] { return guest.check() > 0; });
    life.kill();
  }
  for (auto& ring : guest.host.usedRings)
    ring.next += 3;
  Life life(guest, journal.writable, false);
  life.device.waitUntil([&] { return life.device.host.resetsAsked == 1; });
  life.device.reset();
  BalloonDriver again(guest.ram);
  again.activate(life.device);
  again[INFLATE].add({again.pages({FIRST_PAGE})});
  life.device.waitForUsed(INFLATE, again[INFLATE]);
}

}  // namespace
}  // namespace troupe::balloon
