#include "tests/fuzz/watch.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>

#include "devices/virtio/guest_watch.h"
#include "tests/fuzz/allocations.h"
#include "tests/fuzz/finding.h"

namespace troupe::fuzz {
namespace {

// The only one: the functions of guest_watch.h have no other way to it.
Watch* watching = nullptr;

}  // namespace

Watch::Watch(Arena& arena) : arena(arena), readInPopNumber(Arena::SPAN) {
  KJ_REQUIRE(watching == nullptr);
  watching = this;
}

Watch::~Watch() {
  watching = nullptr;
}

void Watch::reset() {
  forgetRings();
  interleaveAt = nullptr;
  flipping = false;
}

void Watch::forgetReads() {
  for (Held& one : held)
    one.reads.clear();
}

void hostTookLess() {
  if (watching != nullptr) watching->forgetReads();
}

uint64_t guestWrites() {
  return watching == nullptr ? 0 : watching->guestWrites();
}

void Watch::addRing(const virtio::Virtqueue& ring, const virtio::RingLayout& layout) {
  auto part = [&](uint64_t address, uint64_t size) {
    const kj::byte* begin = arena.host(address, size);
    return Range{begin, begin + size};
  };
  auto meet = [](Range a, Range b) { return a.begin < b.end && b.begin < a.end; };
  Ring added;
  added.key = &ring;
  added.size = layout.size;
  added.descriptors = part(layout.descriptorTable, virtio::descriptorTableBytes(layout.size));
  added.available = part(layout.availableRing, virtio::availableRingBytes(layout.size));
  added.used = part(layout.usedRing, virtio::usedRingBytes(layout.size));
  added.overlaps = meet(added.descriptors, added.available) ||
                   meet(added.descriptors, added.used) || meet(added.available, added.used);
  if (meet(added.descriptors, added.used) || meet(added.available, added.used)) {
    added.spoiled = true;
  }
  for (Ring& other : rings) {
    for (Range theirs : {other.descriptors, other.available, other.used}) {
      for (Range ours : {added.descriptors, added.available, added.used}) {
        if (!meet(theirs, ours)) continue;
        added.overlaps = other.overlaps = true;
        added.spoiled = other.spoiled = true;
      }
    }
  }
  rings.push_back(std::move(added));
}

void Watch::forgetRings() {
  rings.clear();
  for (Held& one : held)
    spare.push_back(std::move(one));
  held.clear();
  popping = nullptr;
}

Watch::Ring& Watch::ringOf(const void* key) {
  for (Ring& ring : rings)
    if (ring.key == key) return ring;
  KJ_FAIL_ASSERT("a ring nobody knows");
}

const Watch::Ring& Watch::ringOf(const void* key) const {
  return const_cast<Watch*>(this)->ringOf(key);
}

void Watch::turnBegins() {
  for (Ring& ring : rings)
    ring.popsThisTurn = 0;
}

std::vector<Watch::Returned> Watch::takeReturned(const virtio::Virtqueue& ring) {
  std::vector<Returned> result;
  result.swap(ringOf(&ring).returned);
  return result;
}

size_t Watch::chainsHeld(const virtio::Virtqueue& ring) const {
  return std::count_if(held.begin(), held.end(),
                       [&](const Held& one) { return one.ring == &ring; });
}

bool Watch::usedRingSpoiled(const virtio::Virtqueue& ring) const {
  return ringOf(&ring).spoiled;
}

void Watch::guestWrote(const kj::byte* host, size_t size) {
  ++guestWriteCount;
  for (Ring& ring : rings)
    if (host < ring.used.end && host + size > ring.used.begin) ring.spoiled = true;
}

void Watch::interleave(uint64_t after, kj::byte* host, kj::ArrayPtr<const kj::byte> bytes) {
  KJ_REQUIRE(bytes.size() <= sizeof(interleaveBytes));
  interleaveIn = after;
  interleaveAt = host;
  interleaveSize = bytes.size();
  memcpy(interleaveBytes, bytes.begin(), bytes.size());
}

void Watch::read(const kj::byte* guest, size_t size) {
  if (!arena.contains(guest)) return;  // a device's own buffer, read as if it were a guest's
  if (interleaveAt != nullptr && interleaveIn-- == 0) {
    arena.touched(interleaveAt, interleaveSize);
    memcpy(interleaveAt, interleaveBytes, interleaveSize);
    guestWrote(interleaveAt, interleaveSize);
    disturbed = true;
    interleaveAt = nullptr;
  }
  if (popping != nullptr) return readInPop(guest, size);
  for (const Ring& ring : rings)
    if (isChangingWord(ring, guest, size)) return;
  if (readOfChain(guest, size) || rings.empty()) return;
  finding(kj::str("read of ", size, " bytes that no driver offered, at arena offset ",
                  arena.offsetOf(guest)));
}

// While looking for a chain: everything once.
void Watch::readInPop(const kj::byte* guest, size_t size) {
  // Both tables in bytes, and the index and the slot before them.
  if (++popReads > 2 * popping->size * 10 + 8) {
    finding(kj::str("one chain took more reads than its tables have words: ", popReads));
  }
  bool again = false;
  size_t offset = arena.offsetOf(guest);
  for (size_t i = offset; i < offset + size; i++) {
    again |= readInPopNumber[i] == popNumber;
    readInPopNumber[i] = popNumber;
  }
  if (!again) return;
  if (flipping) {
    disturbed = true;
    flip(guest, size);
  }
  readTwice = true;
}

void Watch::flip(const kj::byte* guest, size_t size) {
  kj::byte* bytes = const_cast<kj::byte*>(guest);
  arena.touched(bytes, size);
  guestWrote(bytes, size);
  for (size_t i = 0; i < size; i++)
    bytes[i] ^= 0xff;
}

// The words of a ring that are looked at again and again: index, flags, used_event.
bool Watch::isChangingWord(const Ring& ring, const kj::byte* guest, size_t size) {
  if (guest < ring.available.begin || guest + size > ring.available.end) return false;
  size_t offset = guest - ring.available.begin;
  return ring.overlaps || offset + size <= virtio::AVAIL_RING_OFFSET ||
         offset >= virtio::AVAIL_RING_OFFSET + 2 * ring.size;
}

bool Watch::readOfChain(const kj::byte* guest, size_t size) {
  Range range{guest, guest + size};
  // The latest chain first: it is the one most likely to be served.
  for (size_t i = held.size(); i-- > 0;) {
    Held& one = held[i];
    if (!holds(one.readable, one.readableHull, range)) continue;
    for (Range& before : one.reads) {
      if (range.begin >= before.end || range.end <= before.begin) continue;
      const kj::byte* at = std::max(range.begin, before.begin);
      auto covers = [&](const std::vector<Range>& list) {
        return std::count_if(list.begin(), list.end(),
                             [&](Range r) { return at >= r.begin && at < r.end; });
      };
      // A driver may offer one byte several times.
      if (covers(one.reads) < covers(one.readable) || isShared(one, range)) break;
      if (flipping) {
        flip(at, 1);
      } else {
        finding(
            kj::str("a byte of a request was read twice, at arena offset ", arena.offsetOf(at)));
      }
      break;
    }
    note(one.reads, range);
    return true;
  }
  return false;
}

// Merged with its neighbour, as sequential access leaves them, unless that would hide a repetition.
void Watch::note(std::vector<Range>& list, Range range) {
  if (!list.empty() && list.back().end == range.begin) {
    list.back().end = range.end;
  } else {
    list.push_back(range);
  }
}

// Whether another chain has it too, so that nobody can tell which of them is being served.
bool Watch::isShared(const Held& one, Range range) const {
  for (const Held& other : held) {
    if (&other != &one && range.begin < other.readableHull.end &&
        other.readableHull.begin < range.end) {
      return true;
    }
  }
  return false;
}

// `gone` goes back: what was read of it may have been noted with a chain that has the same bytes,
// and would count against that one once nobody shares them any more.
void Watch::forgetSharedReads(const Held& gone) {
  for (Held& other : held) {
    if (&other != &gone && gone.readableHull.begin < other.readableHull.end &&
        other.readableHull.begin < gone.readableHull.end) {
      other.reads.clear();
    }
  }
}

// Whether consecutive bytes all belong to `pieces`; they may meet in memory.
bool Watch::holds(const std::vector<Range>& pieces, Range hull, Range range) {
  if (range.begin < hull.begin || range.end > hull.end) return false;
  const kj::byte* at = range.begin;
  for (bool moved = true; moved && at < range.end;) {
    moved = false;
    for (Range piece : pieces) {
      if (at < piece.begin || at >= piece.end) continue;
      at = piece.end;
      moved = true;
    }
  }
  return at >= range.end;
}

void Watch::write(kj::byte* guest, size_t size) {
  if (size == 0 || !arena.contains(guest)) return;
  Range range{guest, guest + size};
  bool allowed = false;
  for (size_t i = held.size(); i-- > 0;) {
    Held& one = held[i];
    if (!holds(one.writable, one.writableHull, range)) continue;
    note(one.writes, range);
    allowed = true;
  }
  for (Ring& ring : rings) {
    bool inUsed = guest >= ring.used.begin && guest + size <= ring.used.end;
    if (allowed && guest < ring.used.end && guest + size > ring.used.begin) ring.spoiled = true;
    allowed |= inUsed;
  }
  if (!allowed && !rings.empty()) {
    finding(kj::str("write of ", size, " bytes where the driver offered none, at arena offset ",
                    arena.offsetOf(guest)));
  }
  arena.touched(guest, size);
}

void Watch::popBegins(const void* key) {
  popping = &ringOf(key);
  ++popNumber;
  popReads = 0;
  strict = !popping->overlaps;
  readTwice = false;
  disturbed = false;
  if (++popping->popsThisTurn > popping->size + 1) {
    finding("one turn looked for more chains than the ring holds");
  }
}

// A driver may lay an indirect table over the ring itself, and the same bytes are read as both.
void Watch::table(const kj::byte* begin, size_t size) {
  for (Range part : {popping->descriptors, popping->available}) {
    if (begin < part.end && part.begin < begin + size) strict = false;
  }
}

void Watch::popEnds(bool found) {
  popping = nullptr;
  // A loop reads what it comes by again, before it is refused.
  if (found && readTwice && strict && !disturbed) {
    finding("a word of the ring was read twice for one chain");
  }
}

void Watch::taken(const void* ring, uint16_t head, kj::ArrayPtr<const iovec> readable,
                  kj::ArrayPtr<const iovec> writable) {
  if (spare.empty()) spare.emplace_back();
  Held one = std::move(spare.back());
  spare.pop_back();
  one.ring = ring;
  one.head = head;
  one.reads.clear();
  one.writes.clear();
  auto fill = [](std::vector<Range>& pieces, kj::ArrayPtr<const iovec> from) {
    pieces.clear();
    Range hull{reinterpret_cast<const kj::byte*>(UINTPTR_MAX), nullptr};
    for (const iovec& piece : from) {
      const kj::byte* begin = static_cast<const kj::byte*>(piece.iov_base);
      pieces.push_back({begin, begin + piece.iov_len});
      hull = {std::min(hull.begin, begin), std::max(hull.end, begin + piece.iov_len)};
    }
    return hull;
  };
  one.readableHull = fill(one.readable, readable);
  one.writableHull = fill(one.writable, writable);
  held.push_back(std::move(one));
  if (listener != nullptr) listener->taken(ring, head, readable, writable);
}

void Watch::returned(const void* ring, uint16_t head, uint32_t written) {
  for (size_t i = 0; i < held.size(); i++) {
    if (held[i].ring != ring || held[i].head != head) continue;
    checkWritten(held[i], written);
    if (listener != nullptr) listener->returned(ring, head, written);
    forgetSharedReads(held[i]);
    spare.push_back(std::move(held[i]));
    held.erase(held.begin() + i);
    ringOf(ring).returned.push_back({head, written});
    return;
  }
  finding("a chain was returned that the device did not hold");
}

// The first `written` bytes of what is writable were all stored (§2.7.8.2).
void Watch::checkWritten(const Held& one, uint32_t written) const {
  uint64_t left = written;
  std::vector<Range> writes = one.writes;
  std::sort(writes.begin(), writes.end(), [](Range a, Range b) { return a.begin < b.begin; });
  for (Range piece : one.writable) {
    const kj::byte* end = piece.begin + std::min<uint64_t>(left, piece.end - piece.begin);
    const kj::byte* at = piece.begin;
    for (Range range : writes)
      if (range.begin <= at && range.end > at) at = range.end;
    if (at < end) {
      finding(kj::str("a used length of ", written, " counts bytes that were never stored"));
    }
    left -= end - piece.begin;
    if (left == 0) return;
  }
  if (left > 0) finding("a used length is more than the chain had room for");
}

}  // namespace troupe::fuzz

namespace troupe::virtio::watch {

using fuzz::watching;

void read(const kj::byte* guest, size_t size) {
  if (watching == nullptr) return;
  fuzz::NotCounted ours;
  watching->read(guest, size);
}
void write(kj::byte* guest, size_t size) {
  if (watching == nullptr) return;
  fuzz::NotCounted ours;
  watching->write(guest, size);
}
void popBegins(const void* ring) {
  if (watching == nullptr) return;
  fuzz::NotCounted ours;
  watching->popBegins(ring);
}
void table(const kj::byte* begin, size_t size) {
  if (watching == nullptr) return;
  fuzz::NotCounted ours;
  watching->table(begin, size);
}
void popEnds(bool found) {
  if (watching == nullptr) return;
  fuzz::NotCounted ours;
  watching->popEnds(found);
}
void taken(const void* ring, uint16_t head, kj::ArrayPtr<const iovec> readable,
           kj::ArrayPtr<const iovec> writable) {
  if (watching == nullptr) return;
  fuzz::NotCounted ours;
  watching->taken(ring, head, readable, writable);
}
void returned(const void* ring, uint16_t head, uint32_t written) {
  if (watching == nullptr) return;
  fuzz::NotCounted ours;
  watching->returned(ring, head, written);
}

}  // namespace troupe::virtio::watch
