#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/virtio/queue_counters.h"

namespace troupe {

// What one queue of a device has done, as its process says.
struct QueueCounts {
  uint16_t queue;
  virtio::CounterSlot counts;
};

// The counters of one device, as `troupe` sees them: a page that it maps to read, and that the
// device's processes write, one after the other. Any of them may be hostile: every word is read
// once, and is a number that nothing depends on.
class CountersView {
 public:
  static constexpr uint64_t BYTES = sizeof(virtio::CounterPage);

  // `file`: sealed memory of at least BYTES, which may be open for reading alone; borrowed.
  explicit CountersView(int file);
  ~CountersView() noexcept(false);
  KJ_DISALLOW_COPY(CountersView);

  // Of the queues that were ever used. None while no process that counts so has begun.
  kj::Array<QueueCounts> read() const;

 private:
  const virtio::CounterPage* page;
};

}  // namespace troupe
