#pragma once

#include <kj/array.h>
#include <kj/async.h>
#include <kj/common.h>

#include "devices/console/broadcast.h"

namespace troupe::console {

// Bytes typed on the host that the guest has not taken yet: a few, in order. Whoever fills it looks
// at room() before reading more from the host, so what does not fit stays with its sender. Main
// thread only.
class InputQueue {
 public:
  static constexpr size_t CAPACITY = 4096;

  InputQueue();
  KJ_DISALLOW_COPY(InputQueue);

  // Takes as much of `bytes` as there is room for and says how much that was.
  size_t append(kj::ArrayPtr<const kj::byte> bytes);
  size_t room() const { return CAPACITY - waiting().size(); }
  kj::Promise<void> whenRoom();

  // What waits for the guest; valid until the next append() or took().
  kj::ArrayPtr<const kj::byte> waiting() const;
  void took(size_t count);
  kj::Promise<void> whenInput();

 private:
  kj::Array<kj::byte> bytes;
  size_t first = 0;
  size_t last = 0;
  Broadcast appended;
  Broadcast roomMade;
};

}  // namespace troupe::console
