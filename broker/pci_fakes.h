#pragma once

#include <kj/debug.h>
#include <kj/function.h>
#include <kj/vector.h>
#include <poll.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "broker/bus.h"
#include "broker/interrupts.h"
#include "broker/msix.h"
#include "broker/virtio_device.h"

// What tests of PCI functions put in the place of KVM, the main loop and a device process.
namespace troupe::broker {

// KVM's interrupt controllers, as far as a test can see them. Any thread.
class FakeInterrupts final: public Interrupts {
 public:
  uint32_t allocateMsiGsi() override { return nextGsi++; }

  bool setMsi(uint32_t gsi, uint64_t address, uint32_t data) override {
    std::lock_guard<std::mutex> lock(mutex);
    ++setMsiCalls;
    if (refuseMessages) return false;
    messages[gsi] = {address, data};
    return true;
  }

  bool attachIrqFd(uint32_t gsi, int eventFd) override {
    std::lock_guard<std::mutex> lock(mutex);
    if (irqFds.count(eventFd) != 0) return false;  // as EBUSY
    irqFds[eventFd] = gsi;
    pollfd readable = {eventFd, POLLIN, 0};
    if (poll(&readable, 1, 0) == 1) ++raised[gsi];  // and the count stays, as in the kernel
    return true;
  }

  void detachIrqFd(uint32_t gsi, int eventFd) override {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = irqFds.find(eventFd);
    if (found != irqFds.end() && found->second == gsi) irqFds.erase(found);
  }

  void sendMsi(uint32_t gsi) override {
    std::lock_guard<std::mutex> lock(mutex);
    ++raised[gsi];
  }

  void setLine(uint32_t gsi, bool level) override {
    std::lock_guard<std::mutex> lock(mutex);
    lines[gsi] = level;
    ++lineChanges;
  }

  bool attachIoEventFd(uint64_t address, int eventFd) override {
    std::lock_guard<std::mutex> lock(mutex);
    return !refuseIoEventFds && ioEventFds.emplace(address, eventFd).second;
  }

  void detachIoEventFd(uint64_t address, int eventFd) override {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = ioEventFds.find(address);
    if (found != ioEventFds.end() && found->second == eventFd) ioEventFds.erase(found);
  }

  // A device writes its call eventfd. KVM consumes what an irqfd gets.
  void signal(int eventFd) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = irqFds.find(eventFd);
    if (found != irqFds.end()) {
      ++raised[found->second];
    } else {
      signalEventFd(eventFd);
    }
  }

  std::mutex mutex;
  std::atomic<uint32_t> nextGsi{24};
  std::map<uint32_t, std::pair<uint64_t, uint32_t>> messages;
  std::map<int, uint32_t> irqFds;
  std::map<uint32_t, uint64_t> raised;
  std::map<uint32_t, bool> lines;
  std::map<uint64_t, int> ioEventFds;
  uint64_t setMsiCalls = 0;
  uint64_t lineChanges = 0;
  bool refuseMessages = false;
  bool refuseIoEventFds = false;
};

// A mailbox whose owner decides when its main loop turns. Any thread.
class FakeMailbox final: public Mailbox {
 public:
  void post(kj::Function<void()> action) override {
    std::lock_guard<std::mutex> lock(mutex);
    actions.add(kj::mv(action));
    mostWaiting = kj::max(mostWaiting, actions.size());
  }

  void runAll() {
    for (;;) {
      kj::Vector<kj::Function<void()>> taken;
      {
        std::lock_guard<std::mutex> lock(mutex);
        taken = kj::mv(actions);
        actions = kj::Vector<kj::Function<void()>>();
      }
      if (taken.empty()) return;
      for (auto& action : taken)
        action();
    }
  }

  std::mutex mutex;
  kj::Vector<kj::Function<void()>> actions;
  size_t mostWaiting = 0;
};

// A device that notes what it is told and answers a reset when the test says so.
class FakeDevice final: public VirtioDevice {
 public:
  void activate(uint64_t newFeatures, kj::Array<QueueSettings> newQueues) override {
    ++activations;
    features = newFeatures;
    queues = kj::mv(newQueues);
  }
  void reset() override {
    ++resets;
    KJ_IF_MAYBE (client, answersResetAtOnce) {
      client->resetDone();
    }
  }
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override {
    writes.add(Write{offset, kj::heapArray<kj::byte>(data)});
  }

  struct Write {
    uint32_t offset;
    kj::Array<kj::byte> data;
  };
  kj::Maybe<VirtioDeviceClient&> answersResetAtOnce;
  uint64_t activations = 0;
  uint64_t resets = 0;
  uint64_t features = 0;
  kj::Array<QueueSettings> queues;
  kj::Vector<Write> writes;
};

constexpr uint64_t FEATURES_FOR_TESTS =
    0x30000007;  // three of the device, INDIRECT_DESC, EVENT_IDX

inline DeviceDescription describe(uint16_t deviceType, std::initializer_list<uint16_t> queueSizes,
                                  size_t configSize = 16) {
  DeviceDescription description;
  description.deviceType = deviceType;
  description.features = FEATURES_FOR_TESTS;
  description.queueSizes = kj::heapArray<uint16_t>(queueSizes);
  description.config = kj::heapArray<kj::byte>(configSize);
  description.configWriteMask = kj::heapArray<kj::byte>(configSize);
  for (size_t i = 0; i < configSize; ++i) {
    description.config[i] = 0xa0 + i;
    description.configWriteMask[i] = i % 8 < 4 ? 0 : 0xff;  // the upper half of each 8 bytes
  }
  return description;
}

}  // namespace troupe::broker
