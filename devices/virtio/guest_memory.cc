#include "devices/virtio/guest_memory.h"

#include <kj/debug.h>

#include "devices/virtio/guest_word.h"

namespace troupe::virtio {
namespace {

// The thread sanitizer knows memcpy() as a plain access, and a guest that writes what we copy as
// the race it is; copying bytes as guest words tells it that the race is meant.
#if defined(__SANITIZE_THREAD__)
constexpr bool THREAD_SANITIZER = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool THREAD_SANITIZER = true;
#else
constexpr bool THREAD_SANITIZER = false;
#endif
#else
constexpr bool THREAD_SANITIZER = false;
#endif

// Keeps the compiler from reading the guest again instead of the copy.
inline void forgetMemory() {
  asm volatile("" ::: "memory");
}

}  // namespace

GuestMemory::GuestMemory(kj::Array<MemoryRegion> regionsParam) : regions(kj::mv(regionsParam)) {
  uint64_t end = 0;
  for (const MemoryRegion& region : regions) {
    KJ_REQUIRE(region.size > 0, "a memory region is empty", region.guestAddress);
    KJ_REQUIRE(region.guestAddress >= end, "memory regions overlap or are not sorted",
               region.guestAddress, end);
    KJ_REQUIRE(region.size <= UINT64_MAX - region.guestAddress, "a memory region wraps",
               region.guestAddress, region.size);
    end = region.guestAddress + region.size;
  }
}

void copyOut(kj::ArrayPtr<kj::byte> copy, const kj::byte* guest) {
  if (THREAD_SANITIZER) {
    for (size_t i = 0; i < copy.size(); i++)
      copy[i] = loadWord<uint8_t>(guest + i);
    return;
  }
  memcpy(copy.begin(), guest, copy.size());
  forgetMemory();
}

void copyIn(kj::byte* guest, kj::ArrayPtr<const kj::byte> bytes) {
  if (THREAD_SANITIZER) {
    for (size_t i = 0; i < bytes.size(); i++)
      storeWord<uint8_t>(guest + i, bytes[i]);
    return;
  }
  memcpy(guest, bytes.begin(), bytes.size());
  forgetMemory();
}

}  // namespace troupe::virtio
