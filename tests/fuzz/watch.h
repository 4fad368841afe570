#pragma once

#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "devices/virtio/virtqueue.h"
#include "tests/fuzz/arena.h"

// Looks over the shoulder of the device under test, through devices/virtio/guest_watch.h, and calls
// finding() when it
//   - reads a byte of ring, descriptor or request a second time within one request, or one that
//     was not offered to it,
//   - writes anywhere but into what is writable of a chain it holds and into the used ring,
//   - says it stored bytes that it did not store,
//   - works without bound.
namespace troupe::fuzz {

class Watch {
 public:
  explicit Watch(Arena& arena);
  ~Watch();
  KJ_DISALLOW_COPY(Watch);

  // From here on `ring` is watched, until forgetRings().
  void addRing(const virtio::Virtqueue& ring, const virtio::RingLayout& layout);
  void forgetRings();

  // How often `ring` may look for a chain in one turn.
  void turnBegins();

  // Told of each chain that leaves `ring` or comes back, as it does.
  class Listener {
   public:
    virtual void taken(const void* ring, uint16_t head, kj::ArrayPtr<const iovec> readable,
                       kj::ArrayPtr<const iovec> writable) = 0;
    virtual void returned(const void* ring, uint16_t head, uint32_t written) = 0;

   protected:
    ~Listener() = default;
  };
  void setListener(Listener* to) { listener = to; }

  // How often the guest wrote anywhere.
  uint64_t guestWrites() const { return guestWriteCount; }

  // What was returned since the last call, in order.
  struct Returned {
    uint16_t head;
    uint32_t written;
  };
  std::vector<Returned> takeReturned(const virtio::Virtqueue& ring);
  size_t chainsHeld(const virtio::Virtqueue& ring) const;

  // Whether anybody but the ring itself wrote into its used ring, whose content then means nothing.
  bool usedRingSpoiled(const virtio::Virtqueue& ring) const;
  // The guest wrote there.
  void guestWrote(const kj::byte* host, size_t size);

  // At the `after`-th read from now on the guest writes `bytes` at `host`.
  void interleave(uint64_t after, kj::byte* host, kj::ArrayPtr<const kj::byte> bytes);

  // A second read of a byte within one request sees other bytes, instead of being reported.
  void setFlipping(bool flips) { flipping = flips; }

  // What was read until now may be read again: the host took less of it than it was given.
  void forgetReads();

  void reset();

  // For guest_watch.h.
  void read(const kj::byte* guest, size_t size);
  void write(kj::byte* guest, size_t size);
  void popBegins(const void* ring);
  void table(const kj::byte* begin, size_t size);
  void popEnds(bool found);
  void taken(const void* ring, uint16_t head, kj::ArrayPtr<const iovec> readable,
             kj::ArrayPtr<const iovec> writable);
  void returned(const void* ring, uint16_t head, uint32_t written);

 private:
  struct Range {
    const kj::byte* begin;
    const kj::byte* end;
  };
  struct Ring {
    const void* key;
    uint32_t size;
    Range descriptors, available, used;
    bool overlaps;  // its own parts each other
    bool spoiled = false;
    uint32_t popsThisTurn = 0;
    std::vector<Returned> returned;
  };
  struct Held {
    const void* ring;
    uint16_t head;
    std::vector<Range> readable, writable;
    std::vector<Range> reads, writes;  // so far
    Range readableHull, writableHull;
  };

  Ring& ringOf(const void* key);
  const Ring& ringOf(const void* key) const;
  void readInPop(const kj::byte* guest, size_t size);
  static bool isChangingWord(const Ring& ring, const kj::byte* guest, size_t size);
  bool readOfChain(const kj::byte* guest, size_t size);
  void flip(const kj::byte* guest, size_t size);
  void checkWritten(const Held& held, uint32_t written) const;
  bool isShared(const Held& held, Range range) const;
  void forgetSharedReads(const Held& gone);
  static bool holds(const std::vector<Range>& pieces, Range hull, Range range);
  static void note(std::vector<Range>& list, Range range);

  Arena& arena;
  std::vector<Ring> rings;
  std::vector<Held> held;
  std::vector<Held> spare;

  Ring* popping = nullptr;
  bool strict = true;
  bool disturbed = false;
  bool readTwice = false;
  uint32_t popReads = 0;
  uint32_t popNumber = 0;
  std::vector<uint32_t> readInPopNumber;  // by arena offset

  Listener* listener = nullptr;
  uint64_t guestWriteCount = 0;

  bool flipping = false;
  uint64_t interleaveIn = 0;
  kj::byte* interleaveAt = nullptr;
  kj::byte interleaveBytes[8];
  size_t interleaveSize = 0;
};

// forgetReads() and guestWrites() of the one that watches.
void hostTookLess();
uint64_t guestWrites();

}  // namespace troupe::fuzz
