#include "tests/fuzz/arena.h"

#include <kj/debug.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

namespace troupe::fuzz {

Arena::Arena() {
  void* mapped = mmap(nullptr, SPAN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  KJ_REQUIRE(mapped != MAP_FAILED);
  begin = static_cast<kj::byte*>(mapped);
  memset(begin, FILL, SPAN);
  ASAN_POISON_MEMORY_REGION(begin, SPAN);
  kj::byte* next = begin + GAP;
  for (size_t i = 0; i < REGION_COUNT; i++) {
    begins[i] = next;
    ASAN_UNPOISON_MEMORY_REGION(next, REGIONS[i].size);
    next += REGIONS[i].size + GAP;
  }
}

Arena::~Arena() {
  ASAN_UNPOISON_MEMORY_REGION(begin, SPAN);
  munmap(begin, SPAN);
}

virtio::GuestMemory Arena::memory() const {
  auto regions = kj::heapArray<virtio::MemoryRegion>(REGION_COUNT);
  for (size_t i = 0; i < REGION_COUNT; i++) {
    regions[i] = virtio::MemoryRegion{REGIONS[i].guestAddress, REGIONS[i].size, begins[i]};
  }
  return virtio::GuestMemory(kj::mv(regions));
}

void Arena::touched(kj::byte* host, size_t size) {
  if (size == 0) return;
  for (size_t line = offsetOf(host) / LINE; line <= (offsetOf(host) + size - 1) / LINE; line++) {
    if (isTouched[line]) continue;
    isTouched[line] = true;
    lines.push_back(line);
  }
}

void Arena::guestWrites(kj::byte* host, size_t size) {
  touched(host, size);
  if (onGuestWrite) onGuestWrite(host, size);
}

void Arena::restore() {
  for (uint32_t line : lines) {
    memset(begin + line * LINE, FILL, LINE);
    isTouched[line] = false;
  }
  lines.clear();
}

}  // namespace troupe::fuzz
