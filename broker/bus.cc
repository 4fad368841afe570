#include "broker/bus.h"

#include <kj/vector.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <shared_mutex>

namespace troupe::broker {
namespace {

struct Range {
  uint64_t start;
  uint64_t size;
  BusDevice* device;
};

}  // namespace

struct Bus::State {
  // Sorted by start. Held only for the search: a device that answers a call may add and remove
  // ranges (a BAR that moves), so it is called without the lock.
  kj::Vector<Range> ranges;
  std::shared_mutex mutex;  // one the thread sanitizer knows, unlike KJ's

  kj::Maybe<Range> find(uint64_t address, uint64_t size) {
    std::shared_lock<std::shared_mutex> lock(mutex);
    auto after = std::upper_bound(ranges.begin(), ranges.end(), address,
                                  [](uint64_t a, const Range& r) { return a < r.start; });
    if (after == ranges.begin()) return nullptr;
    const Range& range = *(after - 1);
    uint64_t offset = address - range.start;
    if (offset >= range.size || size > range.size - offset) return nullptr;
    return range;
  }
};

Bus::Bus() : state(kj::heap<State>()) {}
Bus::~Bus() noexcept(false) = default;

bool Bus::add(uint64_t start, uint64_t size, BusDevice& device) {
  if (size == 0 || start + (size - 1) < start) return false;
  uint64_t last = start + (size - 1);
  std::lock_guard<std::shared_mutex> lock(state->mutex);
  auto& ranges = state->ranges;
  for (auto& range : ranges) {
    if (start <= range.start + (range.size - 1) && range.start <= last) return false;
  }
  ranges.add(Range{start, size, &device});
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.start < b.start; });
  return true;
}

void Bus::remove(uint64_t start) {
  std::lock_guard<std::shared_mutex> lock(state->mutex);
  auto& ranges = state->ranges;
  auto end = std::remove_if(ranges.begin(), ranges.end(),
                            [start](const Range& range) { return range.start == start; });
  ranges.truncate(end - ranges.begin());
}

void Bus::read(uint64_t address, kj::ArrayPtr<kj::byte> data) {
  KJ_IF_MAYBE (range, state->find(address, data.size())) {
    range->device->busRead(address - range->start, data);
  } else {
    memset(data.begin(), 0xff, data.size());
  }
}

void Bus::write(uint64_t address, kj::ArrayPtr<const kj::byte> data) {
  KJ_IF_MAYBE (range, state->find(address, data.size())) {
    range->device->busWrite(address - range->start, data);
  }
}

}  // namespace troupe::broker
