#include "devices/virtio/quarantine.h"

#include <kj/debug.h>

#include <cstring>

#include "devices/virtio/guest_memory.h"
#include "tests/fuzz/planted.h"

namespace troupe::virtio {

Quarantine::Quarantine(kj::ArrayPtr<kj::byte> memory)
    : memory(memory.begin()), slots((memory.size() - HEADER) / sizeof(Slot)) {
  KJ_REQUIRE(memory.size() >= HEADER + sizeof(Slot), "no room for a request", memory.size());
}

Quarantine::Slot* Quarantine::slotOf(uint64_t number) const {
  return reinterpret_cast<Slot*>(memory + HEADER) + number % slots;
}

uint64_t Quarantine::count() const {
  return __atomic_load_n(reinterpret_cast<uint64_t*>(memory), __ATOMIC_ACQUIRE);
}

void Quarantine::keep(QuarantinedRequest request, kj::ArrayPtr<const iovec> readable) {
  uint64_t number =
      __atomic_fetch_add(reinterpret_cast<uint64_t*>(memory), uint64_t(1), __ATOMIC_ACQ_REL);
  Slot& slot = *slotOf(number);
  __atomic_store_n(&slot.done, uint64_t(0), __ATOMIC_RELEASE);
  uint32_t kept = 0;
  for (const iovec& piece : readable) {
    size_t size = kj::min(piece.iov_len, QuarantinedRequest::MOST_BYTES - kept);
    if (size == 0) break;
    copyOut(kj::arrayPtr(slot.bytes + kept, size), static_cast<const kj::byte*>(piece.iov_base));
    kept += size;
  }
  request.keptBytes = kept;
  slot.request = request;
  __atomic_store_n(&slot.done, number + 1, __ATOMIC_RELEASE);
}

kj::Maybe<Quarantine::Kept> Quarantine::read(uint64_t number) const {
  const Slot& slot = *slotOf(number);
  uint64_t done = number + 1;
  if (done == 0 || __atomic_load_n(&slot.done, __ATOMIC_ACQUIRE) != done) return nullptr;
  // Whoever wrote it may write on: what is checked is a copy.
  auto copy = kj::heap<Slot>();
  memcpy(copy.get(), &slot, sizeof(Slot));
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  if (__atomic_load_n(&slot.done, __ATOMIC_RELAXED) != done) return nullptr;
  bool fits = copy->request.keptBytes <= QuarantinedRequest::MOST_BYTES;
  if (!fits && !fuzz::isPlanted(fuzz::Bug::KEPT_LENGTH)) return nullptr;
  return Kept{copy->request,
              kj::heapArray<kj::byte>(kj::arrayPtr(copy->bytes, copy->request.keptBytes))};
}

}  // namespace troupe::virtio
