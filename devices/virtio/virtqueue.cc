#include "devices/virtio/virtqueue.h"

#include <kj/debug.h>

#include "devices/virtio/fetch.h"
#include "devices/virtio/guest_watch.h"
#include "devices/virtio/queue_flight.h"
#include "tests/fuzz/planted.h"

namespace troupe::virtio {
namespace {

using fuzz::Bug;
using fuzz::isPlanted;

// Of one queue in a quarantine.
constexpr uint32_t MOST_QUARANTINED = 4;

bool isAligned(uint64_t address, uint64_t alignment) {
  return address % alignment == 0;
}

kj::byte* ringPart(const GuestMemory& memory, uint64_t address, uint64_t size) {
  return KJ_REQUIRE_NONNULL(memory.slice(address, size), "a ring is not inside RAM", address, size)
      .begin();
}

kj::Array<kj::byte> zeroes(uint64_t size) {
  auto bytes = kj::heapArray<kj::byte>(size);
  memset(bytes.begin(), 0, size);
  return bytes;
}

// Copies one descriptor out, each of its bytes read once. The driver's descriptor table is aligned;
// where an indirect table lies is its own affair (§2.7.5.3 asks for nothing).
Descriptor loadDescriptor(const kj::byte* pointer) {
  uint64_t words[2];
  if (isAligned(reinterpret_cast<uintptr_t>(pointer), sizeof(uint64_t))) {
    words[0] = loadWord<uint64_t>(pointer);
    words[1] = loadWord<uint64_t>(pointer + sizeof(uint64_t));
  } else {
    copyOut(kj::arrayPtr(reinterpret_cast<kj::byte*>(words), sizeof(words)), pointer);
  }
  return Descriptor{words[0], uint32_t(words[1]), uint16_t(words[1] >> 32),
                    uint16_t(words[1] >> 48)};
}

// Copies `size` bytes between the front of `pieces` and a flat private buffer, piece by piece.
template <typename Move>
void forPieces(kj::ArrayPtr<const iovec> pieces, size_t size, Move&& move) {
  size_t done = 0;
  for (const iovec& piece : pieces) {
    if (done == size) return;
    size_t part = kj::min(piece.iov_len, size - done);
    move(static_cast<kj::byte*>(piece.iov_base), done, part);
    done += part;
  }
}

void advance(kj::ArrayPtr<iovec>& pieces, uint64_t size) {
  while (size > 0) {
    iovec& piece = pieces.front();
    if (size < piece.iov_len) {
      piece.iov_base = static_cast<kj::byte*>(piece.iov_base) + size;
      piece.iov_len -= size;
      return;
    }
    size -= piece.iov_len;
    pieces = pieces.slice(1, pieces.size());
  }
}

}  // namespace

bool isSound(const GuestMemory& memory, const RingLayout& layout) {
  uint32_t size = layout.size;
  if (size == 0 || size > MAX_QUEUE_SIZE || (size & (size - 1)) != 0) return false;
  return isAligned(layout.descriptorTable, DESCRIPTOR_TABLE_ALIGNMENT) &&
         isAligned(layout.availableRing, AVAILABLE_RING_ALIGNMENT) &&
         isAligned(layout.usedRing, USED_RING_ALIGNMENT) &&
         memory.slice(layout.descriptorTable, descriptorTableBytes(size)) != nullptr &&
         memory.slice(layout.availableRing, availableRingBytes(size)) != nullptr &&
         memory.slice(layout.usedRing, usedRingBytes(size)) != nullptr;
}

bool Chain::readBytes(kj::ArrayPtr<kj::byte> copy) {
  if (copy.size() > readableLeft) return false;
  forPieces(readPieces, copy.size(), [&](const kj::byte* guest, size_t offset, size_t size) {
    copyOut(copy.slice(offset, offset + size), guest);
  });
  advanceReadable(copy.size());
  return true;
}

bool Chain::writeBytes(kj::ArrayPtr<const kj::byte> bytes) {
  if (bytes.size() > writableLeft) return false;
  forPieces(writePieces, bytes.size(), [&](kj::byte* guest, size_t offset, size_t size) {
    copyIn(guest, bytes.slice(offset, offset + size));
  });
  advanceWritable(bytes.size());
  return true;
}

bool Chain::reserveTail(uint32_t size) {
  KJ_REQUIRE(size > 0 && tailPieces.size() == 0, "a chain has one tail");
  if (size > writableLeft) return false;

  size_t first = writePieces.size();  // of the pieces wholly in the tail
  uint64_t left = size;
  while (left > 0 && writePieces[first - 1].iov_len <= left)
    left -= writePieces[--first].iov_len;

  iovec* begin = writePieces.begin() + first;
  size_t count = writePieces.size() - first;
  if (left > 0) {
    // The piece before is shared: its end moves into a piece of its own, for which there is a
    // spare.
    memmove(begin + 1, begin, count * sizeof(iovec));
    iovec& shared = *(begin - 1);
    shared.iov_len -= left;
    *begin = iovec{static_cast<kj::byte*>(shared.iov_base) + shared.iov_len, left};
    ++count;
  }
  tailPieces = kj::arrayPtr(begin, count);
  writePieces = writePieces.slice(0, first);
  writableLeft -= size;
  return true;
}

void Chain::writeTail(kj::ArrayPtr<const kj::byte> bytes) {
  uint64_t room = 0;
  for (const iovec& piece : tailPieces)
    room += piece.iov_len;
  KJ_REQUIRE(bytes.size() == room, "not what was reserved", bytes.size(), room);
  forPieces(tailPieces, bytes.size(), [&](kj::byte* guest, size_t offset, size_t size) {
    copyIn(guest, bytes.slice(offset, offset + size));
  });
}

void Chain::advanceReadable(uint64_t size) {
  KJ_REQUIRE(size <= readableLeft, "more than there is to read", size, readableLeft);
  advance(readPieces, size);
  readableLeft -= size;
}

void Chain::advanceWritable(uint64_t size) {
  KJ_REQUIRE(size <= writableLeft, "more than there is to write", size, writableLeft);
  advance(writePieces, size);
  writableLeft -= size;
}

Virtqueue::Virtqueue(const GuestMemory& memory, const RingLayout& layout, RingFeatures features,
                     kj::Maybe<QueueJournal&> journal, UsedRing where,
                     kj::Maybe<QueueCounters&> counters)
    : memory(memory),
      features(features),
      ringSize(isSound(memory, layout) ? layout.size : 0),
      descriptorTable(ringPart(memory, layout.descriptorTable, descriptorTableBytes(layout.size))),
      availableRing(ringPart(memory, layout.availableRing, availableRingBytes(layout.size))),
      ownUsedRing(where == UsedRing::COPY ? zeroes(usedRingBytes(layout.size)) : nullptr),
      usedRing(where == UsedRing::COPY
                   ? ownUsedRing.begin()
                   : ringPart(memory, layout.usedRing, usedRingBytes(layout.size))),
      headInFlight(kj::heapArray<bool>(ringSize)),
      arena(ringSize),
      journal(journal),
      counters(counters) {
  KJ_REQUIRE(ringSize > 0, "the size or the alignment of a ring is wrong", layout.size,
             layout.descriptorTable, layout.availableRing, layout.usedRing);
  KJ_REQUIRE(where == UsedRing::IN_GUEST || !features.eventIndex,
             "whoever may not write the ring cannot say which index it waits for");
  memset(headInFlight.begin(), 0, headInFlight.size());
  KJ_IF_MAYBE (c, counters) {
    c->clear();
  }
}

Virtqueue::~Virtqueue() {
  KJ_IF_MAYBE (c, counters) {
    c->clear();
  }
}

void Virtqueue::record(kj::Own<QueueFlight> recorder) {
  flightLog = kj::mv(recorder);
}

bool Virtqueue::refreshAvailable() {
  // Pairs with the driver's barrier before it stores the index (§2.7.13.3): the ring entries and
  // descriptors up to this index are read after it.
  availableSeen = loadIndex(availableRing + AVAIL_INDEX_OFFSET);
  // What the driver made available and has not seen used can never exceed the ring, nor go back
  // behind what was taken. The bound also ends a batch: a driver that adds while we drain runs into
  // it.
  uint16_t taken = nextAvailable - usedPublished;
  uint16_t added = availableSeen - nextAvailable;
  if (uint32_t(taken) + added > ringSize) isBroken = true;
  return !isBroken && availableSeen != nextAvailable;
}

// All that it calls in its place: a chain would be handed through five functions otherwise.
[[gnu::flatten]] kj::Maybe<Chain> Virtqueue::pop() {
  watch::popBegins(this);
  bool wasBroken = isBroken;
  if (flightLog.get() != nullptr) flightLog->lookBegins();
  kj::Maybe<Chain> chain = take();
  watch::popEnds(chain != nullptr);
  if (flightLog.get() != nullptr && isBroken != wasBroken) flightLog->refused();
  if (isBroken && !wasBroken) countError();
  KJ_IF_MAYBE (c, chain) {
    if (thread != nullptr) thread->beat();
    watch::taken(this, c->headIndex, c->readPieces, c->writePieces);
    if (flightLog.get() != nullptr) flightLog->taken(c->readPieces, c->writePieces);
  }
  return chain;
}

// The driver may write this word as well.
uint16_t Virtqueue::usedIndexSoFar(uint16_t returned) const {
  return ownUsedRing == nullptr ? loadIndex(usedRing + USED_INDEX_OFFSET) : returned;
}

bool Virtqueue::resume(bool ownFault, uint16_t returned, Suspects how,
                       kj::Maybe<Quarantine&> deadly, uint16_t index) {
  suspects = how;
  quarantine = deadly;
  queueIndex = index;
  auto& kept = KJ_REQUIRE_NONNULL(journal, "nothing was kept of this queue");
  // recover() takes only what the journal bears out.
  uint16_t usedIndex = usedIndexSoFar(returned);
  KJ_IF_MAYBE (pending, kept.recover(ringSize, usedIndex, ownFault)) {
    recovered = kj::mv(*pending);
    leftBehind = recovered;
    nextUsed = usedPublished = usedAsked = usedIndex;
    // Whatever was taken is either in flight or was returned.
    nextAvailable = availableSeen = headsRead = uint16_t(usedIndex + recovered.size());
  } else {
    isBroken = true;
  }
  return !isBroken;
}

kj::Maybe<Chain> Virtqueue::take() {
  if (isBroken || !mayTake()) return nullptr;
  return leftBehind.size() > 0 ? takeLeftBehind() : takeNew();
}

kj::Maybe<Chain> Virtqueue::takeNew() {
  if (nextAvailable == availableSeen && !refreshAvailable()) return nullptr;
  if (nextAvailable == headsRead) readHeads();

  Chain chain;
  chain.headIndex = heads[nextAvailable % HEADS_AHEAD];
  if (!takeHead(chain)) return nullptr;
  ++nextAvailable;
  KJ_IF_MAYBE (j, journal) {
    j->take(chain.headIndex);
  }
  return kj::mv(chain);
}

kj::Maybe<Chain> Virtqueue::takeLeftBehind() {
  const QueueJournal::Pending& pending = leftBehind.front();
  if (flightLog.get() != nullptr) flightLog->leftBehind();
  triesOne = isNextSuspect();
  leftBehind = leftBehind.slice(1, leftBehind.size());
  KJ_ASSERT_NONNULL(journal).takeAgain(pending.head);
  Chain chain;
  chain.headIndex = pending.head;
  chain.deathCount = pending.deaths;
  chain.wasLeftBehind = true;
  if (!takeHead(chain)) return nullptr;
  KJ_IF_MAYBE (kept, quarantine) {
    if (chain.isDeadly() && quarantined < MOST_QUARANTINED) {
      quarantined++;
      kept->keep(
          {pending.sequence, chain.readableLeft, chain.writableLeft, 0, queueIndex, pending.head},
          chain.readPieces);
    }
  }
  return kj::mv(chain);
}

// False when its chain breaks a rule, which breaks the ring.
bool Virtqueue::takeHead(Chain& chain) {
  if (flightLog.get() != nullptr) flightLog->head(chain.headIndex);
  // A head that is still out would share its storage with the earlier chain.
  if (chain.headIndex >= ringSize || headInFlight[chain.headIndex] || !collect(chain)) {
    isBroken = true;
    return false;
  }
  headInFlight[chain.headIndex] = true;
  ++chainsInFlight;
  KJ_IF_MAYBE (c, counters) {
    c->take(chain.headIndex, chainsInFlight);
  }
  return true;
}

// The descriptors a chain is walked through: the driver's table or one indirect table.
struct Virtqueue::Table {
  const kj::byte* begin;
  uint32_t count;
};

// Walks the chain of `chain.headIndex`. False when it breaks a rule.
bool Virtqueue::collect(Chain& chain) {
  chain.readPieces = kj::arrayPtr(arena.shortPieces(chain.headIndex), size_t(0));
  chain.writePieces = chain.readPieces;
  Table table{descriptorTable, ringSize};
  bool indirect = false;
  uint32_t index = chain.headIndex;
  uint32_t inTable = 0;  // descriptors met in `table`: more than it has are a loop
  uint32_t inChain = 0;

  for (;;) {
    if (index >= table.count) return false;
    if (++inTable > table.count && !isPlanted(Bug::DESCRIPTOR_LOOP)) return false;
    Descriptor descriptor = loadDescriptor(table.begin + index * sizeof(Descriptor));
    if (flightLog.get() != nullptr) flightLog->descriptor(indirect, index, descriptor);

    if (descriptor.flags & DESC_F_INDIRECT) {
      // Nested tables, INDIRECT together with NEXT, and INDIRECT that was not negotiated:
      // §2.7.5.3.1.
      if (indirect || (descriptor.flags & DESC_F_NEXT) || !features.indirectDescriptors)
        return false;
      if (descriptor.length == 0 || descriptor.length % sizeof(Descriptor) != 0) return false;
      uint32_t count = descriptor.length / sizeof(Descriptor);
      if (count > ringSize) return false;
      uint32_t bytesToHave =
          isPlanted(Bug::INDIRECT_LENGTH) ? sizeof(Descriptor) : descriptor.length;
      KJ_IF_MAYBE (bytes, memory.slice(descriptor.address, bytesToHave)) {
        table = Table{bytes->begin(), count};
        watch::table(table.begin, descriptor.length);
      } else {
        return false;
      }
      indirect = true;
      index = 0;
      inTable = 0;
      continue;
    }

    // "A driver MUST NOT create a descriptor chain longer than the Queue Size", §2.7.5.3.1.
    if (++inChain > arena.limit() && !isPlanted(Bug::DESCRIPTOR_LOOP)) return false;
    if (isPlanted(Bug::DOUBLE_FETCH)) {
      descriptor.length = loadWord<uint32_t>(table.begin + index * sizeof(Descriptor) + 8);
    }
    if (!append(chain, descriptor)) return false;
    if (!(descriptor.flags & DESC_F_NEXT)) break;
    index = descriptor.next;
  }
  chain.readableTotal = chain.readableLeft;
  chain.writableTotal = chain.writableLeft;
  return true;
}

// Adds the buffer of `descriptor` to the end of `chain`.
bool Virtqueue::append(Chain& chain, const Descriptor& descriptor) {
  bool writable = descriptor.flags & DESC_F_WRITE;
  if (!writable && chain.writePieces.size() > 0) return false;  // §2.7.4.2
  if (descriptor.length == 0) return true;
  if (chain.readableLeft + chain.writableLeft + descriptor.length > MAX_CHAIN_BYTES) return false;

  iovec piece;
  KJ_IF_MAYBE (bytes, memory.slice(descriptor.address, descriptor.length)) {
    piece = iovec{bytes->begin(), bytes->size()};
  } else {
    return false;
  }

  size_t readCount = chain.readPieces.size();
  size_t writeCount = chain.writePieces.size();
  iovec* begin = chain.readPieces.begin();
  if (readCount + writeCount == PieceArena::SHORT) {
    iovec* roomy = arena.longPieces(chain.headIndex);
    memcpy(roomy, begin, (readCount + writeCount) * sizeof(iovec));
    begin = roomy;
  }
  begin[readCount + writeCount] = piece;
  (writable ? writeCount : readCount) += 1;
  (writable ? chain.writableLeft : chain.readableLeft) += descriptor.length;
  chain.readPieces = kj::arrayPtr(begin, readCount);
  chain.writePieces = kj::arrayPtr(begin + readCount, writeCount);
  return true;
}

[[gnu::flatten]] void Virtqueue::push(Chain&& chain, uint32_t written) {
  KJ_REQUIRE(chain.headIndex < ringSize && headInFlight[chain.headIndex],
             "pushed a chain that was not taken", chain.headIndex);
  KJ_REQUIRE(written <= chain.writableTotal, "more than the chain had room for", written,
             chain.writableTotal);
  if (thread != nullptr) thread->beat();
  headInFlight[chain.headIndex] = false;
  --chainsInFlight;
  triesOne = false;  // if one was tried, it was this
  watch::returned(this, chain.headIndex, written);
  storeUsed(chain.headIndex, written);
  KJ_IF_MAYBE (j, journal) {
    j->giveBack(chain.headIndex);
  }
  KJ_IF_MAYBE (c, counters) {
    c->giveBack(chain.headIndex, chain.readableTotal, written, chainsInFlight);
  }
  if (isPlanted(Bug::ANSWERED_TWICE) && written == 0) storeUsed(chain.headIndex, written);
}

void Virtqueue::storeUsed(uint16_t head, uint32_t written) {
  if (flightLog.get() != nullptr) flightLog->answered(head, written);
  size_t slot =
      isPlanted(Bug::USED_RING_OVERRUN) ? nextUsed % (ringSize + 1u) : nextUsed & (ringSize - 1u);
  kj::byte* element = usedRing + USED_RING_OFFSET + slot * USED_ELEMENT_BYTES;
  storeWord<uint32_t>(element, head);
  storeWord<uint32_t>(element + sizeof(uint32_t), written);
  ++nextUsed;
}

kj::Array<UsedElement> Virtqueue::unpublished() const {
  KJ_REQUIRE(ownUsedRing != nullptr, "a used ring the guest can write tells nothing");
  auto elements = kj::heapArray<UsedElement>(uint16_t(nextUsed - usedPublished));
  for (size_t i = 0; i < elements.size(); i++) {
    size_t slot = (usedPublished + i) & (ringSize - 1u);
    const kj::byte* element = usedRing + USED_RING_OFFSET + slot * USED_ELEMENT_BYTES;
    elements[i] =
        UsedElement{loadWord<uint32_t>(element), loadWord<uint32_t>(element + sizeof(uint32_t))};
  }
  return elements;
}

bool Virtqueue::publish() {
  if (nextUsed == usedAsked) return false;
  usedPublished = nextUsed;

  // As a release, pairs with the driver's read barrier between the used index and the element: it
  // sees elements and buffers. As a fence, pairs with the driver's full barrier between storing
  // used_event (or clearing NO_INTERRUPT) and looking at the index again: one side sees the other,
  // and that for what show() has stored before, too.
  storeIndex(usedRing + USED_INDEX_OFFSET, nextUsed);
  KJ_IF_MAYBE (j, journal) {
    j->tell();
  }
  bool wanted = wantsInterrupt();
  usedAsked = nextUsed;
  return wanted;
}

void Virtqueue::show() {
  if (nextUsed == usedPublished) return;
  usedPublished = nextUsed;
  // A release as in publish(), and no fence.
  releaseIndex(usedRing + USED_INDEX_OFFSET, nextUsed);
  KJ_IF_MAYBE (j, journal) {
    j->tell();
  }
}

// For the chains that were pushed since it was last asked.
bool Virtqueue::wantsInterrupt() const {
  if (features.eventIndex) {
    uint16_t usedEvent = loadIndex(availableRing + AVAIL_RING_OFFSET + ringSize * sizeof(uint16_t));
    return passesEvent(usedEvent, usedAsked, nextUsed);
  }
  return !(loadIndex(availableRing + AVAIL_FLAGS_OFFSET) & AVAIL_F_NO_INTERRUPT);
}

// The next heads, each read once, as many as there are places for them; and the processor has their
// descriptors fetched, which are the driver's stores and would each be waited for in its turn.
void Virtqueue::readHeads() {
  uint16_t count = kj::min(uint16_t(availableSeen - nextAvailable), HEADS_AHEAD);
  for (; headsRead != uint16_t(nextAvailable + count); headsRead++) {
    size_t slot = headsRead & (ringSize - 1);
    uint16_t head = loadWord<uint16_t>(availableRing + AVAIL_RING_OFFSET + slot * sizeof(uint16_t));
    heads[headsRead % HEADS_AHEAD] = head;
    if (head < ringSize) fetch(descriptorTable + head * sizeof(Descriptor), Purpose::TO_READ);
  }
}

void Virtqueue::enableNotifications() {
  // Pairs with the driver's full barrier between storing the available index and reading this word:
  // either it sees the request for a notification, or the hasWork() that follows sees its index.
  if (features.eventIndex) {
    storeIndex(usedRing + USED_RING_OFFSET + ringSize * USED_ELEMENT_BYTES, nextAvailable);
  } else {
    storeIndex(usedRing + USED_FLAGS_OFFSET, 0);
  }
}

void Virtqueue::disableNotifications() {
  // With event idx the word already names an index the driver has passed, and it does not notify
  // again until it has gone all the way round. Without, nothing depends on when the driver sees it.
  if (!features.eventIndex) storeWord<uint16_t>(usedRing + USED_FLAGS_OFFSET, USED_F_NO_NOTIFY);
}

}  // namespace troupe::virtio
