#pragma once

#include <kj/common.h>
#include <kj/vector.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/device_engine.h"
#include "devices/virtio/guest_memory.h"

namespace troupe::balloon {

// The pages of one turn that are to be given back to the host: whole pages of guest RAM, as few
// ranges as they make, and no more than one call to the broker may name. What is looked at and left
// alone counts as well, so a turn is bounded whatever the guest names.
class PageBatch {
 public:
  static constexpr size_t MAX_RANGES = 2048;
  static constexpr size_t MAX_PAGES = 16384;  // 64 MiB

  // Outlived by `memory`.
  explicit PageBatch(const virtio::GuestMemory& memory);

  void clear();
  bool isEmpty() const { return found.size() == 0; }
  bool isFull() const { return room() == 0; }
  // How many more pages it takes at least.
  size_t room() const { return kj::min(MAX_RANGES - found.size(), pagesLeft); }

  // The page with this number (§5.5.6: its address divided by 4096). One that is not in RAM is
  // ignored: it is nobody's.
  void addPage(uint32_t number);

  // Whole pages of a buffer, as far as there is room. Returns how many of its bytes are done with:
  // all of them, or those before the first page that found no room.
  uint64_t addBuffer(const iovec& buffer);

  // In ascending order, none touching the next.
  kj::ArrayPtr<const virtio::GuestRange> ranges();

 private:
  void add(uint64_t address, uint64_t size);

  const virtio::GuestMemory& memory;
  kj::Vector<virtio::GuestRange> found;
  size_t pagesLeft = MAX_PAGES;
};

}  // namespace troupe::balloon
