#include "devices/balloon/page_batch.h"

#include <kj/debug.h>

#include <algorithm>

#include "devices/balloon/wire.h"
#include "tests/fuzz/planted.h"

namespace troupe::balloon {
namespace {

uint64_t pageUp(uint64_t address) {
  return (address + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}
uint64_t pageDown(uint64_t address) {
  return address & ~(PAGE_BYTES - 1);
}

}  // namespace

PageBatch::PageBatch(const virtio::GuestMemory& memory) : memory(memory) {
  found.reserve(MAX_RANGES);
}

void PageBatch::clear() {
  found.clear();
  pagesLeft = MAX_PAGES;
}

void PageBatch::addPage(uint32_t number) {
  KJ_REQUIRE(!isFull());
  --pagesLeft;
  if (fuzz::isPlanted(fuzz::Bug::PAGE_FORGOTTEN) && number % 256 == 0) return;
  uint64_t address = number * PAGE_BYTES;
  bool isRam = memory.slice(address, PAGE_BYTES) != nullptr;
  if (isRam || fuzz::isPlanted(fuzz::Bug::PAGE_OUTSIDE_RAM)) add(address, PAGE_BYTES);
}

uint64_t PageBatch::addBuffer(const iovec& buffer) {
  if (isFull()) return 0;
  uint64_t address = KJ_REQUIRE_NONNULL(memory.guestAddress(buffer.iov_base), "no guest memory");
  uint64_t begin = pageUp(address);
  uint64_t end = pageDown(address + buffer.iov_len);
  if (begin >= end) {
    --pagesLeft;
    return buffer.iov_len;
  }
  uint64_t pages = kj::min((end - begin) / PAGE_BYTES, pagesLeft);
  pagesLeft -= pages;
  add(begin, pages * PAGE_BYTES);
  uint64_t done = begin + pages * PAGE_BYTES;
  return done == end ? buffer.iov_len : done - address;
}

// Drivers name neighbours one after the other, upwards or downwards.
void PageBatch::add(uint64_t address, uint64_t size) {
  if (found.size() > 0) {
    auto& last = found.back();
    if (last.guestAddress + last.size == address) {
      last.size += size;
      return;
    }
    if (address + size == last.guestAddress) {
      last.guestAddress = address;
      last.size += size;
      return;
    }
  }
  found.add(virtio::GuestRange{address, size});
}

kj::ArrayPtr<const virtio::GuestRange> PageBatch::ranges() {
  if (found.size() == 0) return nullptr;
  std::sort(found.begin(), found.end(),
            [](auto& left, auto& right) { return left.guestAddress < right.guestAddress; });
  size_t kept = 0;
  for (size_t i = 1; i < found.size(); i++) {
    auto& last = found[kept];
    uint64_t end = last.guestAddress + last.size;
    if (found[i].guestAddress <= end) {
      last.size = std::max(end, found[i].guestAddress + found[i].size) - last.guestAddress;
    } else {
      found[++kept] = found[i];
    }
  }
  return found.slice(0, kept + 1);
}

}  // namespace troupe::balloon
