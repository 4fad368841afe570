// Fuzzes what a device process leaves behind in memory, and others read when it is gone: the
// journal of a queue and that of an image's mappings, whose reader is its successor, and the
// requests it died of, whose reader is `troupe`. Whoever wrote them may have been anybody.
#include <kj/debug.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "devices/blk/qcow2/mapping_journal.h"
#include "devices/virtio/quarantine.h"
#include "devices/virtio/queue_journal.h"
#include "sandbox/fuzz_message.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"

namespace troupe::virtio {
namespace {

using blk::qcow2::MappingJournal;
using fuzz::finding;
using fuzz::Op;

constexpr uint16_t SIZE = 16;  // of the queue
constexpr uint32_t SPOIL = 6;  // the kind of an operation from which on one spoils a word

// As much memory as `bytes` says and not one more, so that the sanitizer sees who reads on.
struct Kept {
  explicit Kept(size_t bytes) : words(kj::heapArray<uint64_t>(bytes / 8)) {
    memset(words.begin(), 0, words.size() * 8);
  }
  kj::ArrayPtr<kj::byte> bytes() { return words.asPtr().asBytes(); }
  void spoil(const Op& op) { words[op.c % words.size()] = op.d; }
  kj::Array<uint64_t> words;
};

// A driver and a device that keep the rules, up to a death.
class LivingQueue {
 public:
  explicit LivingQueue(Kept& kept) : journal(kept.bytes()) { journal.clear(SIZE, 1); }

  void perform(const Op& op) {
    uint16_t head = op.b % SIZE;
    switch (op.kind % SPOIL) {
      case 0:
      case 1:
        if (isTaken[head]) return;
        journal.take(head);
        order.push_back(head);
        isTaken[head] = true;
        return;
      case 2:
      case 3:
        if (!isTaken[head] || isReturned[head]) return;
        journal.giveBack(head);
        isReturned[head] = true;
        batch.push_back(head);
        return;
      default:
        used += batch.size();
        if (op.a & 1) journal.tell();
        // Dies before it notes what the driver knows.
        isOver = !(op.a & 1);
        for (uint16_t one : batch) {
          isTaken[one] = isReturned[one] = false;
          order.erase(std::find(order.begin(), order.end(), one));
        }
        batch.clear();
        return;
    }
  }

  QueueJournal journal;
  uint16_t used = 0;
  bool isOver = false;
  std::vector<uint16_t> order;  // what is in flight

 private:
  bool isTaken[SIZE] = {};
  bool isReturned[SIZE] = {};
  std::vector<uint16_t> batch;
};

// Rules that everything behind recover() believes.
void check(kj::ArrayPtr<const QueueJournal::Pending> pending) {
  bool isIn[SIZE] = {};
  uint64_t last = 0;
  for (auto& one : pending) {
    if (one.head >= SIZE) finding("a chain in flight that the queue cannot have");
    if (isIn[one.head]) finding("a chain is in flight twice");
    if (one.sequence <= last) finding("chains in flight that are in no order");
    isIn[one.head] = true;
    last = one.sequence;
  }
}

void queue(kj::ArrayPtr<const kj::byte> input, const std::vector<Op>& ops) {
  Kept kept(QueueJournal::bytesFor(SIZE));
  LivingQueue living(kept);
  bool isSound = true;
  for (auto& op : ops) {
    if (op.kind % 8 >= SPOIL) {
      isSound = false;
      kept.spoil(op);
    } else if (!living.isOver) {
      living.perform(op);
    }
  }
  uint16_t used = living.used + (input[0] & 0x80 ? ops[0].b : 0);
  isSound = isSound && used == living.used;
  bool ownFault = input[0] & 0x40;
  QueueJournal successor(kept.bytes());
  KJ_IF_MAYBE (pending, successor.recover(SIZE, used, ownFault)) {
    check(*pending);
    if (isSound) {
      bool isSame = pending->size() == living.order.size();
      for (size_t i = 0; isSame && i < pending->size(); i++)
        isSame = (*pending)[i].head == living.order[i];
      if (!isSame) finding("others are in flight than were");
    }
    // A successor that dies at once leaves the same.
    QueueJournal third(kept.bytes());
    KJ_IF_MAYBE (again, third.recover(SIZE, used, false)) {
      check(*again);
      if (again->size() != pending->size()) finding("who recovers loses a chain, or finds one");
    } else {
      finding("what was recovered makes no sense to the next one");
    }
  } else if (isSound) {
    finding("a sound journal is refused");
  }
}

void mappings(const std::vector<Op>& ops) {
  Kept kept(64 + 16 * (MappingJournal::ROOM + 1));
  MappingJournal journal(kept.bytes());
  for (auto& op : ops) {
    if (op.kind % 8 < SPOIL) {
      journal.open();
      if (journal.hasRoom()) journal.add({op.c, op.d});
    } else {
      // Where it counts: the header, and the first records.
      kept.words[op.c % 64] = op.d;
    }
  }
  KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&] {
                 MappingJournal successor(kept.bytes());
                 KJ_IF_MAYBE (records, successor.recover()) {
                   for (size_t i = 1; i < records->size(); i++)
                     if ((*records)[i - 1].cluster >= (*records)[i].cluster)
                       finding("a cluster twice, or in no order");
                 }
               })) {
    bool isRefusal = strstr(failure->getDescription().cStr(), "TRP-blk-029") != nullptr;
    if (!isRefusal) finding(failure->getDescription());
  }
}

void quarantine(const std::vector<Op>& ops) {
  constexpr size_t SLOTS = 3;
  constexpr size_t SLOT =
      sizeof(uint64_t) + sizeof(QuarantinedRequest) + QuarantinedRequest::MOST_BYTES;
  Kept kept((64 + SLOTS * SLOT + 7) & ~size_t(7));
  Quarantine requests(kept.bytes());
  kj::byte said[64] = {1, 2, 3};
  for (auto& op : ops) {
    if (op.kind % 8 < SPOIL) {
      iovec piece{said, op.b % (sizeof(said) + 1)};
      requests.keep({op.d, op.c, op.b, 0, op.a, op.b}, kj::arrayPtr(&piece, 1));
    } else {
      // Anywhere, but mostly beside the bytes.
      size_t slot = op.a % (SLOTS + 1);
      size_t at = slot == SLOTS ? op.c : 8 + (slot * SLOT + op.b % 48) / 8;
      kept.words[at % kept.words.size()] = op.d;
    }
  }
  uint64_t count = requests.count();
  for (uint64_t back = 0; back <= SLOTS + 1; back++) {
    KJ_IF_MAYBE (one, requests.read(count - back)) {
      if (one->bytes.size() > QuarantinedRequest::MOST_BYTES) finding("more bytes than are kept");
      for (kj::byte each : one->bytes)
        sandbox::fuzzing::looked = sandbox::fuzzing::looked + each;
    }
  }
}

void run(kj::ArrayPtr<const kj::byte> input) {
  auto ops = fuzz::decode(input);
  if (ops.empty()) return;
  switch (input[1] % 4) {
    case 0:
      return mappings(ops);
    case 1:
      return quarantine(ops);
    default:
      return queue(input, ops);
  }
}

}  // namespace
}  // namespace troupe::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::sandbox::fuzzing::Quiet quiet;
  if (size > 1) troupe::virtio::run(kj::arrayPtr(data, size));
  return 0;
}
