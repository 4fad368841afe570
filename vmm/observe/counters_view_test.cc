#include "vmm/observe/counters_view.h"

#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>
#include <thread>

#include "sandbox/shared_memory.h"

namespace troupe {
namespace {

// A device's side of the page, which may store what it likes.
struct Device {
  Device() : memory(sandbox::makeSharedMemory("counters", CountersView::BYTES)) {
    void* mapped =
        mmap(nullptr, CountersView::BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory.writable, 0);
    page = static_cast<virtio::CounterPage*>(mapped);
  }
  ~Device() { munmap(page, CountersView::BYTES); }

  sandbox::SharedMemory memory;
  virtio::CounterPage* page;
};

TEST(CountersView, ShowsTheQueuesThatWereUsed) {
  Device device;
  CountersView view(device.memory.readOnly);
  EXPECT_EQ(view.read().size(), 0u) << "no process has begun";
  device.page->layout = virtio::CounterPage::LAYOUT;
  virtio::QueueCounters counters(device.page->queues[2]);
  EXPECT_EQ(view.read().size(), 0u);
  counters.take(1, 1);
  counters.giveBack(1, 10, 20, 0);
  auto seen = view.read();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].queue, 2);
  EXPECT_EQ(seen[0].counts.requests, 1u);
  EXPECT_EQ(seen[0].counts.fromGuestBytes, 10u);
  EXPECT_EQ(seen[0].counts.toGuestBytes, 20u);
}

TEST(CountersView, OfAnotherLayoutNothingIsBelieved) {
  Device device;
  CountersView view(device.memory.readOnly);
  memset(device.page, 0xff, CountersView::BYTES);
  EXPECT_EQ(view.read().size(), 0u);
}

TEST(CountersView, AnyNumbersAreOnlyNumbers) {
  Device device;
  CountersView view(device.memory.readOnly);
  memset(device.page, 0xff, CountersView::BYTES);
  device.page->layout = virtio::CounterPage::LAYOUT;
  auto seen = view.read();
  ASSERT_EQ(seen.size(), size_t(virtio::CounterPage::QUEUES));
  EXPECT_EQ(seen[30].counts.waits[9], UINT64_MAX);
}

TEST(CountersView, WhoWritesWhileItIsReadOnlyChangesNumbers) {
  Device device;
  CountersView view(device.memory.readOnly);
  device.page->layout = virtio::CounterPage::LAYOUT;
  std::atomic<bool> over{false};
  std::thread writer([&]() {
    virtio::QueueCounters counters(device.page->queues[0]);
    for (uint16_t head = 0; !over; head++) {
      counters.take(head, 1);
      counters.giveBack(head, 1, 2, 0);
    }
  });
  uint64_t last = 0;
  for (int i = 0; i < 10000; i++) {
    for (auto& one : view.read()) {
      EXPECT_GE(one.counts.requests, last);
      last = one.counts.requests;
    }
  }
  over = true;
  writer.join();
}

}  // namespace
}  // namespace troupe
