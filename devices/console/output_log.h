#pragma once

#include <kj/array.h>
#include <kj/async.h>
#include <kj/common.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/console/broadcast.h"
#include "devices/console/replay_buffer.h"
#include "devices/console/told_place.h"

namespace troupe::console {

// What is kept of an OutputLog beside its bytes: zero at first.
struct KeptOutput {
  uint64_t end = 0;        // of ReplayBuffer
  uint64_t delivered = 0;  // of the reader that begins where the one before stopped
  ToldPlace::Words told = {0, 0};
};

// What the guest printed, on its way to any number of readers on the host, each at its own place.
//
// write() never waits and memory is the replay buffer's, whatever the readers do. The first reader
// and a late one alike begin with the oldest byte kept, unless they want none of it. A reader that
// falls behind what is kept goes on from there, after a line that tells how many bytes it missed.
//
// So that a reader who is merely slow misses nothing, a careful writer asks congested() first. It
// is true while a reader that takes bytes is far behind; a reader that stopped taking them holds
// the writer up once, for PATIENCE, and then not again before it is really taking some. Main thread
// only.
class OutputLog {
 public:
  static constexpr size_t CAPACITY = 1 << 20;

  // How long a reader may take too little before the writer goes on without it. A Linux guest's
  // console driver spins for its buffer meanwhile; a reader on a busy host may need as long to get
  // its turn. Judged in two halves, so that a pause of this process itself is not taken for one of
  // the reader.
  static constexpr kj::Duration PATIENCE = 400 * kj::MILLISECONDS;

  // The most that comes in one write() of a log that is kept.
  static constexpr size_t MOST_AT_ONCE = 16384;

  explicit OutputLog(kj::Timer& timer, size_t capacity = CAPACITY);
  // In memory that outlives the process, and this.
  OutputLog(kj::Timer& timer, KeptOutput& kept, kj::ArrayPtr<kj::byte> memory);
  KJ_DISALLOW_COPY(OutputLog);

  // Goes on with what was left there since. There are no readers yet.
  void takeOver();

  // WHERE_IT_WAS: where the reader stopped that a process before this one had; for one at most.
  enum class From { OLDEST, NOW, WHERE_IT_WAS };

  // One consumer, from its construction to its destruction. It must not outlive the log.
  class Reader {
   public:
    explicit Reader(OutputLog& log, From from = From::OLDEST);
    ~Reader() noexcept(false);
    KJ_DISALLOW_COPY(Reader);

    // The next bytes in order; none when it has everything. Valid until the next write() or took().
    kj::ArrayPtr<const kj::byte> next();

    // The first `count` bytes of next() are delivered. Between the two calls the log may have been
    // written.
    void took(size_t count);

    // Resolves when next() has something to give.
    kj::Promise<void> whenMore();

   private:
    friend class OutputLog;
    uint64_t behind() const;

    OutputLog& log;
    uint64_t position;
    kj::String lostLine;  // being delivered: it stands before the byte at `position`
    size_t lostLineTaken = 0;
    uint64_t taken = 0;       // of everything, for judging its pace
    uint64_t checkpoint = 0;  // value of `taken` when it was last judged
    kj::uint idleTurns = 0;   // how often in a row it had taken too little by then
    bool stuck = false;
    const bool isKept;
  };

  void write(kj::ArrayPtr<const kj::byte> bytes);

  // The same for bytes that did not come by the driver's ring.
  void writeAside(kj::ArrayPtr<const kj::byte> bytes);

  // How far it has come since it began.
  uint64_t end() const { return buffer.end(); }

  // Up to where the driver was told that it has been printed.
  ToldPlace& told() { return place; }
  // What stands behind that, for a driver with this used index (§2.7.8).
  uint64_t untold(uint16_t usedIndex) const;

  bool congested() const;
  kj::Promise<void> whenClear();

  // Resolves when every reader has everything, or when none took a byte for `patience`.
  kj::Promise<void> drained(kj::Duration patience);

 private:
  uint64_t startOf(From from) const;
  void judge();
  bool empty() const;
  uint64_t totalTaken() const;

  kj::Timer& timer;
  KeptOutput keptHere;
  KeptOutput& kept;
  ReplayBuffer buffer;
  ToldPlace place;
  kj::Vector<Reader*> readers;
  Broadcast written;
  Broadcast cleared;
  Broadcast emptied;
};

}  // namespace troupe::console
