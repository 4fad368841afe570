#include "devices/virtio/queue_journal.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include <algorithm>
#include <atomic>

namespace troupe::virtio {

void QueueJournal::clear(uint16_t size, uint64_t activation) {
  KJ_REQUIRE(bytesFor(size) <= length, "a journal too small for its queue", size);
  lastSequence = 0;
  returned = 0;
  // A death in the middle leaves a journal of no activation.
  store(memory + ACTIVATION, 0);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  memset(memory, 0, bytesFor(size));
  store(memory + ACTIVATION, activation);
}

kj::Maybe<kj::Array<QueueJournal::Pending>> QueueJournal::recover(uint16_t size, uint16_t usedIndex,
                                                                  bool ownFault) {
  KJ_REQUIRE(bytesFor(size) <= length, "a journal too small for its queue", size);
  uint64_t told = load(memory + TOLD);
  if (told > SEQUENCE_MASK) return nullptr;
  // The driver may have been told of one batch more than the process had time to note.
  uint16_t ahead = usedIndex - uint16_t(told);
  if (ahead > size) return nullptr;

  kj::Vector<Pending> pending;
  uint32_t noted = 0;  // how many entries of that batch there are
  uint64_t last = 0;
  for (uint32_t head = 0; head < size; head++) {
    uint64_t word = load(entry(head));
    uint64_t returnedAt = load(entry(head) + RETURNED_AT);
    uint64_t sequence = word & SEQUENCE_MASK;
    if (sequence == 0) {
      if (word != 0 || returnedAt != 0) return nullptr;
      continue;
    }
    last = kj::max(last, sequence);
    if (returnedAt > told + size) return nullptr;
    if (returnedAt > told && returnedAt <= told + ahead) ++noted;
    if (returnedAt != 0 && returnedAt <= told + ahead) continue;
    uint8_t deaths = word >> DEATHS_SHIFT;
    // One that was done, or that the process had not come to yet, had nothing to do with it.
    bool isGuilty = ownFault && returnedAt == 0 && (word & IN_HAND);
    if (isGuilty && deaths < UINT8_MAX) ++deaths;
    pending.add(Pending{sequence, uint16_t(head), deaths});
  }
  if (noted != ahead || last >= SEQUENCE_MASK - UINT32_MAX) return nullptr;

  auto bySequence = [](const Pending& a, const Pending& b) { return a.sequence < b.sequence; };
  std::sort(pending.begin(), pending.end(), bySequence);
  for (size_t i = 1; i < pending.size(); i++) {
    if (pending[i - 1].sequence == pending[i].sequence) return nullptr;
  }

  lastSequence = last;
  returned = told + ahead;
  tell();
  for (auto& chain : pending) {
    store(entry(chain.head), uint64_t(chain.deaths) << DEATHS_SHIFT | chain.sequence);
    store(entry(chain.head) + RETURNED_AT, 0);
  }
  return pending.releaseAsArray();
}

}  // namespace troupe::virtio
