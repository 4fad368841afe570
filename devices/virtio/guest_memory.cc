#include "devices/virtio/guest_memory.h"

#include <kj/debug.h>

#include "devices/virtio/guest_word.h"

namespace troupe::virtio {
namespace {

// From here on one instruction is faster than a loop over words. It, too, touches each byte once,
// and is not the compiler's to split or to repeat.
constexpr size_t BULK_BYTES = 256;

void copyBulk(void* to, const void* from, size_t size) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

// Calls `move` for consecutive words of 1, 2, 4 and 8 bytes that make up `size` bytes from `guest`
// on, each aligned to its size. memcpy() will not do: it reads the middle of a short copy twice.
template <typename Move>
void forWords(const kj::byte* guest, size_t size, Move&& move) {
  size_t done = 0;
  auto step = [&](auto word) {
    move(done, word);
    done += sizeof(word);
  };
  auto left = [&] { return size - done; };
  while (left() > 0 && reinterpret_cast<uintptr_t>(guest + done) % 8 != 0)
    step(uint8_t());
  while (left() >= 8)
    step(uint64_t());
  if (left() >= 4) step(uint32_t());
  if (left() >= 2) step(uint16_t());
  if (left() >= 1) step(uint8_t());
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
  if (copy.size() > 0) watch::read(guest, copy.size());
  if (copy.size() >= BULK_BYTES) return copyBulk(copy.begin(), guest, copy.size());
  forWords(guest, copy.size(), [&](size_t offset, auto word) {
    word = loadPart<decltype(word)>(guest + offset);
    memcpy(copy.begin() + offset, &word, sizeof(word));
  });
}

void copyIn(kj::byte* guest, kj::ArrayPtr<const kj::byte> bytes) {
  if (bytes.size() > 0) watch::write(guest, bytes.size());
  if (bytes.size() >= BULK_BYTES) return copyBulk(guest, bytes.begin(), bytes.size());
  forWords(guest, bytes.size(), [&](size_t offset, auto word) {
    memcpy(&word, bytes.begin() + offset, sizeof(word));
    storePart<decltype(word)>(guest + offset, word);
  });
}

}  // namespace troupe::virtio
