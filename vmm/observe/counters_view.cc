#include "vmm/observe/counters_view.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/mman.h>

namespace troupe {

namespace {

uint64_t load(const uint64_t& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}

virtio::CounterSlot copy(const virtio::CounterSlot& from) {
  virtio::CounterSlot to;
  to.requests = load(from.requests);
  to.inFlight = load(from.inFlight);
  to.fromGuestBytes = load(from.fromGuestBytes);
  to.toGuestBytes = load(from.toGuestBytes);
  to.errors = load(from.errors);
  to.waitNs = load(from.waitNs);
  for (uint32_t i = 0; i < virtio::CounterSlot::WAITS; i++)
    to.waits[i] = load(from.waits[i]);
  return to;
}

}  // namespace

CountersView::CountersView(int file) {
  void* mapped = mmap(nullptr, BYTES, PROT_READ, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) KJ_FAIL_SYSCALL("mmap", errno, "counters");
  page = static_cast<const virtio::CounterPage*>(mapped);
}

CountersView::~CountersView() noexcept(false) {
  munmap(const_cast<virtio::CounterPage*>(page), BYTES);
}

kj::Array<QueueCounts> CountersView::read() const {
  kj::Vector<QueueCounts> queues;
  if (load(page->layout) != virtio::CounterPage::LAYOUT) return nullptr;
  for (uint16_t i = 0; i < virtio::CounterPage::QUEUES; i++) {
    QueueCounts one{i, copy(page->queues[i])};
    if (one.counts.requests > 0 || one.counts.inFlight > 0 || one.counts.errors > 0)
      queues.add(one);
  }
  return queues.releaseAsArray();
}

}  // namespace troupe
