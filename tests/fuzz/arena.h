#pragma once

#include <kj/common.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "devices/virtio/guest_memory.h"
#include "tests/fuzz/guest_space.h"

namespace troupe::fuzz {

// A GuestSpace in this process. Under the address sanitizer everything between its regions is
// poisoned. restore() undoes what was touched, 64 bytes at a time, so that an input that writes
// little costs little.
class Arena final: public GuestSpace {
 public:
  Arena();
  ~Arena();
  KJ_DISALLOW_COPY(Arena);

  virtio::GuestMemory memory() const;

  // Somebody is about to write there.
  void touched(kj::byte* host, size_t size);
  void restore();

  // Told of what the guest itself writes.
  std::function<void(const kj::byte*, size_t)> onGuestWrite;

  bool contains(const kj::byte* host) const { return host >= begin && host < begin + SPAN; }
  // A number for each byte, below SPAN.
  size_t offsetOf(const kj::byte* host) const { return host - begin; }
  static constexpr size_t GAP = 0x4000;
  static constexpr size_t SPAN =
      REGIONS[0].size + REGIONS[1].size + REGIONS[2].size + GAP * (REGION_COUNT + 1);

 private:
  void guestWrites(kj::byte* host, size_t size) override;

  static constexpr size_t LINE = 64;
  kj::byte* begin;
  std::vector<uint32_t> lines;
  bool isTouched[SPAN / LINE] = {};
};

}  // namespace troupe::fuzz
