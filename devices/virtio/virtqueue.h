#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/guest_memory.h"
#include "devices/virtio/guest_word.h"
#include "devices/virtio/piece_arena.h"
#include "devices/virtio/pulse.h"
#include "devices/virtio/quarantine.h"
#include "devices/virtio/queue_counters.h"
#include "devices/virtio/queue_journal.h"
#include "devices/virtio/wire.h"

namespace troupe::virtio {

// Where one split virtqueue lies (§2.7), as the driver said at DRIVER_OK: unchecked.
struct RingLayout {
  uint16_t size;  // descriptors
  uint64_t descriptorTable;
  uint64_t availableRing;
  uint64_t usedRing;
};

// What was negotiated that changes how a ring is read.
struct RingFeatures {
  bool indirectDescriptors;  // VIRTIO_F_INDIRECT_DESC (§2.7.5.3)
  bool eventIndex;           // VIRTIO_F_EVENT_IDX (§2.7.7, §2.7.10)
};

// Where a device puts what it returns to the driver. COPY is for one that may not write the guest's
// memory: it pushes into a used ring of its own, and somebody who may stores unpublished() for it
// before it calls publish(). Such a device can neither ask for notifications nor stop them, and
// negotiates no event index, so that drivers notify it each time.
enum class UsedRing { IN_GUEST, COPY };

// One element of the used ring (§2.7.8).
struct UsedElement {
  uint32_t head;
  uint32_t written;
};

// Whether a Virtqueue can be made of `layout`: the size is one §2.7 allows, the three parts are
// aligned as it asks, and each lies wholly inside one region of `memory`.
bool isSound(const GuestMemory& memory, const RingLayout& layout);

class QueueFlight;
class Virtqueue;

// One descriptor chain taken from the available ring (§2.7.4): first the device-readable bytes,
// then the device-writable ones, as pieces of mapped guest RAM. Every descriptor was read once and
// checked before this object existed; the buffers behind it are still the guest's to change.
// Descriptors of length 0 leave no piece.
//
// A cheap value that may be moved into a request table and pushed later, in any order. It borrows
// storage of its Virtqueue, which has room for every head at once: nothing is allocated per chain.
class Chain {
 public:
  Chain(Chain&&) = default;
  Chain& operator=(Chain&&) = default;
  KJ_DISALLOW_COPY(Chain);

  uint16_t head() const { return headIndex; }

  // Whether an earlier process of this device had taken it, and died; and how many of them in a row
  // died of their own fault while they had it (queue_journal.h).
  bool isLeftBehind() const { return wasLeftBehind; }
  uint8_t deaths() const { return deathCount; }

  // Whether it is to be answered with an error, since processes keep dying of it.
  bool isDeadly() const { return deathCount >= DEADLY; }

  // What is left to read and to write. iov_base points into guest RAM, for system calls only.
  kj::ArrayPtr<const iovec> readable() const { return readPieces; }
  kj::ArrayPtr<const iovec> writable() const { return writePieces; }
  uint64_t readableBytes() const { return readableLeft; }
  uint64_t writableBytes() const { return writableLeft; }

  // Takes the next sizeof(T) readable bytes, however the driver split them over descriptors, into a
  // private copy. False (and nothing taken) when fewer are left.
  template <typename T>
  bool read(T& copy) {
    static_assert(std::is_trivially_copyable<T>::value, "wire types only");
    return readBytes(kj::arrayPtr(reinterpret_cast<kj::byte*>(&copy), sizeof(T)));
  }
  bool readBytes(kj::ArrayPtr<kj::byte> copy);

  // Stores `bytes` at the front of what is left to write; false (and nothing stored) when too long.
  bool writeBytes(kj::ArrayPtr<const kj::byte> bytes);

  // Takes the last `size` writable bytes off the end, split or not, so that what remains is data:
  // for a status byte behind it. They are stored later with writeTail(), which takes exactly `size`
  // bytes. False (and nothing taken) when fewer are left. Once per chain, `size` at least 1.
  bool reserveTail(uint32_t size);
  void writeTail(kj::ArrayPtr<const kj::byte> bytes);

  // Moves past `size` bytes that a system call took from readable() or stored through writable().
  void advanceReadable(uint64_t size);
  void advanceWritable(uint64_t size);

 private:
  friend class Virtqueue;
  Chain() = default;

  // All three lie one behind the other in the storage of this chain's head.
  kj::ArrayPtr<iovec> readPieces;
  kj::ArrayPtr<iovec> writePieces;
  kj::ArrayPtr<iovec> tailPieces;
  uint64_t readableLeft = 0;
  uint64_t writableLeft = 0;
  uint64_t readableTotal = 0;
  uint64_t writableTotal = 0;
  uint16_t headIndex = 0;
  uint8_t deathCount = 0;
  bool wasLeftBehind = false;
};

// The device's side of one split virtqueue (§2.7).
//
// The rings lie in memory the guest keeps writing: each field is copied out once and checked before
// use, and nothing returned from here points into a ring. A chain that breaks a rule of §2.7 breaks
// the whole ring (broken()): a driver that is wrong about one chain is not to be trusted with the
// next. Chains have at most min(size(), MAX_PIECES) descriptors. Single-threaded.
class Virtqueue {
 public:
  // Throws unless isSound(memory, layout). `memory`, `journal` and `counters` must outlive this
  // object. Ring and journal are new (QueueJournal::clear()), unless resume() comes next.
  Virtqueue(const GuestMemory& memory, const RingLayout& layout, RingFeatures features,
            kj::Maybe<QueueJournal&> journal = nullptr, UsedRing where = UsedRing::IN_GUEST,
            kj::Maybe<QueueCounters&> counters = nullptr);
  ~Virtqueue();
  KJ_DISALLOW_COPY(Virtqueue);

  // Goes on where the process before stopped, whose journal this is: pop() gives out what it had in
  // flight, in the order it was taken, and then what is new. Before anything else, once.
  // `ownFault`: that process died of itself. `returned`: with COPY, the used index that stands in
  // the guest's ring, from whoever stores it. False, and broken(), when that index and the journal
  // contradict each other. Deadly chains go into `quarantine`, as those of queue `index`: the
  // first few, so that a queue of buffers that wait for the host does not push out the others'.
  bool resume(bool ownFault, uint16_t returned = 0, Suspects suspects = Suspects::TOGETHER,
              kj::Maybe<Quarantine&> quarantine = nullptr, uint16_t index = 0);

  // Whether nobody has returned a chain yet. `returned` as above.
  bool isFresh(uint16_t returned = 0) const { return usedIndexSoFar(returned) == 0; }

  // Each chain that is taken or returned is a step of the thread that does it: `pulse`, which must
  // outlive this object, beats.
  void beatIn(Pulse& pulse) { thread = &pulse; }
  // So is whatever else is a step on the way: of a chain that takes many.
  void beat() {
    if (thread != nullptr) thread->beat();
  }

  // Has each chain recorded as it is taken and as it is returned. Before anything else, once.
  void record(kj::Own<QueueFlight> recorder);
  // Where a device notes what it has its host do (queue_flight.h); null when nobody records.
  QueueFlight* flight() { return flightLog.get(); }

  // The next chain; none when the ring is empty or broken().
  // Between two calls of publish() there are at most size() of them.
  kj::Maybe<Chain> pop();

  // True when pop() would find something: one load of the available index. For a spinning reader.
  bool hasWork() const {
    return !isBroken && mayTake() &&
           (leftBehind.size() > 0 ||
            loadIndex(availableRing + AVAIL_INDEX_OFFSET) != nextAvailable);
  }

  // Returns `chain` to the driver (§2.7.8). `written`: bytes stored, from its first writable byte;
  // throws if that is more than it had. The driver sees it after publish().
  void push(Chain&& chain, uint32_t written);

  // Makes all pushed chains visible with one store of the used index and says whether the driver
  // wants an interrupt for any since this was last asked (§2.7.7.2): call it once per batch.
  bool publish();

  // Makes them visible in the middle of a batch, which costs less: publish() has to follow before
  // anybody waits.
  void show();

  // Whether publish() would most likely say so now. A glance that orders nothing.
  bool isAwaited() const { return nextUsed != usedAsked && wantsInterrupt(); }

  // What was pushed since the last publish(), in order. With COPY only.
  kj::Array<UsedElement> unpublished() const;

  // Asks the driver for (no) notifications (§2.7.10). After enabling, look at hasWork() again.
  void enableNotifications();
  void disableNotifications();

  // The used index (§2.7.8) as the driver has seen it, and as the next publish() makes it.
  uint16_t publishedIndex() const { return usedPublished; }
  uint16_t pushedIndex() const { return nextUsed; }

  // A request is answered with an error, or what it asks for is dropped: it counts as such.
  void countError() {
    KJ_IF_MAYBE (c, counters) {
      c->fail();
    }
  }

  // Chains taken and not yet pushed.
  uint32_t inFlight() const { return chainsInFlight; }

  // True once the driver has put the ring into a state the spec forbids; only a reset heals it.
  bool broken() const { return isBroken; }

  uint16_t size() const { return ringSize; }

 private:
  struct Table;
  // A chain that is tried alone waits for all others, and they for it.
  bool mayTake() const { return !triesOne && (chainsInFlight == 0 || !isNextSuspect()); }
  bool isNextSuspect() const {
    return suspects == Suspects::ALONE && leftBehind.size() > 0 && leftBehind.front().deaths > 0;
  }
  kj::Maybe<Chain> take();
  kj::Maybe<Chain> takeNew();
  kj::Maybe<Chain> takeLeftBehind();
  bool takeHead(Chain& chain);
  bool refreshAvailable();
  void readHeads();
  bool collect(Chain& chain);
  bool append(Chain& chain, const Descriptor& descriptor);
  void storeUsed(uint16_t head, uint32_t written);
  bool wantsInterrupt() const;
  uint16_t usedIndexSoFar(uint16_t returned) const;

  const GuestMemory& memory;
  const RingFeatures features;
  const uint16_t ringSize;
  kj::byte* const descriptorTable;
  kj::byte* const availableRing;
  kj::Array<kj::byte> ownUsedRing;  // with COPY
  kj::byte* const usedRing;

  bool isBroken = false;
  uint16_t nextAvailable = 0;  // of the available ring, modulo 2^16 as all of these
  uint16_t availableSeen = 0;  // the driver's index when last looked at
  // Entries of the available ring that were read ahead: up to `headsRead`, by index.
  static constexpr uint16_t HEADS_AHEAD = 16;  // more descriptors are hardly on their way at once
  uint16_t heads[HEADS_AHEAD];
  uint16_t headsRead = 0;
  uint16_t nextUsed = 0;       // where the next push goes
  uint16_t usedPublished = 0;  // what the driver was told
  uint16_t usedAsked = 0;      // and up to where it was asked whether it wants an interrupt
  uint32_t chainsInFlight = 0;
  kj::Array<bool> headInFlight;
  PieceArena arena;
  kj::Maybe<QueueJournal&> journal;
  kj::Maybe<QueueCounters&> counters;
  kj::Own<QueueFlight> flightLog;  // null: nobody records
  kj::Array<QueueJournal::Pending> recovered;
  kj::ArrayPtr<const QueueJournal::Pending> leftBehind;  // of `recovered`, not yet given out
  Suspects suspects = Suspects::TOGETHER;
  bool triesOne = false;  // what is in flight is a suspect, ALONE
  kj::Maybe<Quarantine&> quarantine;
  uint16_t queueIndex = 0;
  uint32_t quarantined = 0;
  Pulse* thread = nullptr;  // null: nobody asks
};

}  // namespace troupe::virtio
