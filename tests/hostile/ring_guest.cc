#include "tests/hostile/ring_guest.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <algorithm>
#include <cstring>

#include "devices/virtio/wire.h"

namespace troupe::hostile {

using fuzz::RequestTemplate;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using UsedRing = virtio::testing::FakeHost::UsedRing;

namespace {

constexpr uint32_t GUARD = 64;  // bytes before and behind each buffer

kj::Own<fuzz::JailedDevice> named(const char* name) {
  auto device = fuzz::jailedDevice(name);
  KJ_REQUIRE(device.get() != nullptr, "no such device", name);
  return device;
}

bool isPoison(kj::ArrayPtr<const kj::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](kj::byte each) { return each == FakeRam::POISON; });
}

}  // namespace

RingGuest::RingGuest(const char* name, kj::Maybe<int> journal)
    : ram({{0, FIRST_END}, {VICTIM, MIB}, {HIGH, GIB}}),
      device(named(name)),
      sizes(device->queueSizes()),
      journal(journal) {
  for (uint64_t begin : {VICTIM, HIGH})
    memset(ram.bytes(begin, MIB).begin(), FakeRam::POISON, MIB);
  makeGoodRequest();
  launch();
  expectWell();
  usage = fuzz::usageOf(process->child().pid());
}

void RingGuest::makeGoodRequest() {
  RequestTemplate request;
  device->request(device->goodRequest(), request);
  auto add = [&](uint32_t length, bool writable) {
    if (length == 0) return;
    good.add(Buffer{ram.allocate(length + 2 * GUARD, 16) + GUARD, length, writable});
  };
  header = request.header;
  add(header.size(), false);
  add(request.readable, false);
  add(request.writable, true);
  add(request.tail, true);
}

// A device that was told so may have written there.
void RingGuest::writeHeader() {
  if (header.empty()) return;
  memcpy(ram.bytes(good[0].address, good[0].length).begin(), header.data(), header.size());
}

uint32_t RingGuest::goodWritable() const {
  uint32_t sum = 0;
  for (const Buffer& buffer : good)
    sum += buffer.writable ? buffer.length : 0;
  return sum;
}

void RingGuest::activate(uint64_t features, uint32_t only) {
  drivers.clear();
  virtio::RingFeatures ringFeatures{(features & virtio::F_INDIRECT_DESC) != 0,
                                    (features & virtio::F_EVENT_IDX) != 0};
  std::vector<Enabled> enabled;
  for (uint16_t i = 0; i < sizes.size(); i++) {
    drivers.push_back(kj::heap<FakeDriver>(ram, sizes[i], ringFeatures));
    if (only >> i & 1) enabled.push_back({i, drivers[i]->layout()});
  }
  activate(features, enabled);
}

void RingGuest::activate(const virtio::RingLayout& layout) {
  activate(features(), {{goodQueue(), layout}});
}

void RingGuest::activate(uint64_t features, const std::vector<Enabled>& enabled) {
  ++activations;
  activeFeatures = features;
  active = enabled;
  process->host.usedRings.clear();
  for (auto& one : active)
    if (device->readsOnly()) process->host.usedRings.add(UsedRing{one.queue, one.layout, 0});
  sendActivate(/*isResumed=*/false);
}

void RingGuest::sendActivate(bool isResumed) {
  auto request = process->device().activateRequest();
  request.setFeatures(activeFeatures);
  request.setNumber(activations);
  request.setResumed(isResumed);
  auto queues = request.initQueues(active.size());
  for (size_t i = 0; i < active.size(); i++) {
    auto& layout = active[i].layout;
    queues[i].setIndex(active[i].queue);
    queues[i].setSize(layout.size);
    queues[i].setDescriptorTable(layout.descriptorTable);
    queues[i].setAvailableRing(layout.availableRing);
    queues[i].setUsedRing(layout.usedRing);
    if (device->readsOnly()) queues[i].setReturned(process->host.usedRings[i].next);
  }
  process->await(request.send().ignoreResult());
}

void RingGuest::launch() {
  fuzz::JailedDevice::Fds fds;
  KJ_IF_MAYBE (fd, journal) {
    fds.push_back({"journal", 0, *fd});
  }
  process = device->start(ram, kj::mv(fds));
  resetsSeen = 0;
  if (device->readsOnly()) {
    process->attachReadOnly();
  } else {
    process->attach();
  }
}

void RingGuest::kill() {
  process->child().kill();
  process->waitForExit();
}

void RingGuest::replace() {
  auto rings = kj::mv(process->host.usedRings);
  process = nullptr;
  launch();
  process->host.usedRings = kj::mv(rings);
  sendActivate(/*isResumed=*/true);
}

void RingGuest::waitForNeedsReset() {
  process->waitUntil([this] { return askedForReset(); });
  resetsSeen = process->host.resetsAsked;
}

void RingGuest::expectWell() {
  activate();
  writeHeader();
  driver().add(good);
  auto used = process->waitForUsed(goodQueue(), driver());
  EXPECT_LE(used.written, goodWritable());
  process->reset();
  resetsSeen = process->host.resetsAsked;
}

void RingGuest::expectUntouched() {
  EXPECT_TRUE(isPoison(ram.bytes(VICTIM, MIB)));
  EXPECT_TRUE(isPoison(ram.bytes(HIGH, MIB)));
  for (const Buffer& buffer : good) {
    EXPECT_TRUE(isPoison(ram.bytes(buffer.address - GUARD, GUARD)));
    EXPECT_TRUE(isPoison(ram.bytes(buffer.address + buffer.length, GUARD)));
  }
}

void RingGuest::expectNoGrowth() {
  expectWell();
  auto now = fuzz::usageOf(process->child().pid());
  EXPECT_LE(now.fds, usage.fds);
  EXPECT_LE(now.threads, usage.threads);
  // Pages of its heap that a first long chain touches stay; more than that is a leak.
  EXPECT_LE(now.privateKib, usage.privateKib + 8192);
}

}  // namespace troupe::hostile
