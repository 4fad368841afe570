#pragma once

#include <kj/memory.h>
#include <kj/vector.h>
#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/testing/process_bench.h"
#include "tests/fuzz/jailed_device.h"
#include "tests/fuzz/process_usage.h"

namespace troupe::hostile {

// Where no good request has anything: nothing may ever be written there. VICTIM is followed by a
// hole, as are the first region and the last.
constexpr uint64_t MIB = 1 << 20;
constexpr uint64_t FIRST_END = 64 * MIB;
constexpr uint64_t VICTIM = 96 * MIB;
constexpr uint64_t VICTIM_END = VICTIM + MIB;
constexpr uint64_t HIGH = 1ull << 32;
constexpr uint64_t GIB = 1 << 30;
constexpr uint64_t HIGH_END = HIGH + GIB;  // far more than is ever touched

// Any device as it ships, in its jail, and a driver for each of its queues that may break every
// rule. Each wait fails after ten seconds.
class RingGuest {
 public:
  // `name` as for fuzz::jailedDevice(). The device is attached and well. `journal`: memory that
  // outlives its process, for replace().
  explicit RingGuest(const char* name, kj::Maybe<int> journal = nullptr);
  KJ_DISALLOW_COPY(RingGuest);

  // New rings for all queues, or for those of which `only` has the bit.
  void activate(uint64_t features, uint32_t only = UINT32_MAX);
  void activate() { activate(features()); }
  // The queue the device takes good requests from, laid out so.
  void activate(const virtio::RingLayout& layout);
  void reset() { process->reset(); }

  // kill -9; and another process that goes on with the driver, unless it asks for a reset.
  void kill();
  void replace();
  // The same while nobody drives the device.
  void restart() { launch(); }
  // Returns once `done`, looking as often as it can; a device for which the broker stores gets its
  // answers meanwhile.
  template <typename Done>
  void waitBusily(Done&& done) {
    if (device->readsOnly()) return process->waitUntil(kj::fwd<Done>(done));
    while (!done())
      sched_yield();
  }

  virtio::testing::FakeDriver& driver(uint16_t queue) { return *drivers[queue]; }
  virtio::testing::FakeDriver& driver() { return driver(goodQueue()); }
  uint16_t queueCount() const { return sizes.size(); }
  uint16_t largestQueue() const { return *std::max_element(sizes.begin(), sizes.end()); }
  uint16_t goodQueue() { return device->goodQueue(); }
  bool looksAtOnce(uint16_t queue) { return device->looksAtOnce(queue); }
  uint64_t features() { return device->features(); }

  // A request that a device that is well answers; in memory that is taken once, with a few bytes
  // around each buffer that nobody may touch.
  kj::ArrayPtr<const virtio::testing::Buffer> goodRequest() const { return good; }
  uint32_t goodWritable() const;

  // The device has said that it needs a reset since this was last asked; waits for it.
  void waitForNeedsReset();
  bool askedForReset() const { return process->host.resetsAsked > resetsSeen; }

  // New rings, a request that is answered, and a reset.
  void expectWell();
  // Nobody wrote where no driver offered anything.
  void expectUntouched();
  // No more fds, threads or memory than after the start.
  void expectNoGrowth();

  virtio::testing::FakeRam ram;

 private:
  kj::Own<fuzz::JailedDevice> device;
  const std::vector<uint16_t> sizes;

 public:
  kj::Own<virtio::testing::ProcessBench> process;

 private:
  struct Enabled {
    uint16_t queue;
    virtio::RingLayout layout;
  };
  void activate(uint64_t features, const std::vector<Enabled>& enabled);
  void sendActivate(bool isResumed);
  void launch();
  void makeGoodRequest();
  void writeHeader();

  std::vector<kj::Own<virtio::testing::FakeDriver>> drivers;
  kj::Vector<virtio::testing::Buffer> good;
  const kj::Maybe<int> journal;
  uint64_t activations = 0;
  uint64_t activeFeatures = 0;
  std::vector<Enabled> active;
  std::vector<kj::byte> header;  // what its first buffer holds, if it has one
  uint32_t resetsSeen = 0;
  fuzz::Usage usage{};
};

}  // namespace troupe::hostile
