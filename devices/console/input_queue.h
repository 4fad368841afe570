#pragma once

#include <kj/array.h>
#include <kj/async.h>
#include <kj/common.h>

#include "devices/console/broadcast.h"
#include "devices/console/told_place.h"

namespace troupe::console {

// What is kept of an InputQueue beside its bytes: zero at first.
struct KeptInput {
  uint64_t end = 0;  // bytes that were ever appended
  ToldPlace::Words told = {0, 0};
};

// Bytes typed on the host that the guest has not taken yet: a few, in order. Whoever fills it looks
// at room() before reading more from the host, so what does not fit stays with its sender. Main
// thread only.
class InputQueue {
 public:
  static constexpr size_t CAPACITY = 4096;

  InputQueue();
  // In memory of CAPACITY bytes that outlives the process, and this.
  InputQueue(KeptInput& kept, kj::ArrayPtr<kj::byte> memory);
  KJ_DISALLOW_COPY(InputQueue);

  // Goes on with what was left there since.
  void takeOver();

  // Takes as much of `bytes` as there is room for and says how much that was.
  size_t append(kj::ArrayPtr<const kj::byte> bytes);
  size_t room() const { return CAPACITY - (kept.end - freed); }
  kj::Promise<void> whenRoom();

  // What waits for the guest, as far as it lies in one piece; valid until the next append().
  kj::ArrayPtr<const kj::byte> waiting() const;
  kj::Promise<void> whenInput();

  // So much of waiting() has been taken, and is not needed again.
  void took(size_t count);

  // The same where the guest does not know yet that it has it: nothing is overwritten before
  // settle(), which comes right before the driver's used index changes.
  void give(size_t count);
  void settle(uint16_t published, uint16_t pushed);

  // A driver begins that knows of no input; or goes on with this used index (§2.7.8), served by a
  // process before this one: what it was not told of is given again.
  void begin();
  void goOn(uint16_t published);

 private:
  void free();
  bool isPlace(uint64_t place) const { return place <= kept.end && kept.end - place <= CAPACITY; }

  KeptInput keptHere;
  kj::Array<kj::byte> own;
  KeptInput& kept;
  kj::ArrayPtr<kj::byte> ring;  // the byte at position p is ring[p % CAPACITY]
  ToldPlace told;
  uint64_t first = 0;  // that waits
  uint64_t freed = 0;  // those before it may be overwritten
  Broadcast appended;
  Broadcast roomMade;
};

}  // namespace troupe::console
