#pragma once

#include <kj/async.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/console/broadcast.h"

namespace troupe::console {

// Whether one side of a port is open, for those who want to know when that changes. Main thread
// only.
class OpenState {
 public:
  explicit OpenState(bool open) : open(open), openingCount(open ? 1 : 0) {}
  KJ_DISALLOW_COPY(OpenState);

  bool isOpen() const { return open; }

  // How often it has become open: tells one who looks late that it was closed in between.
  uint64_t openings() const { return openingCount; }

  void set(bool isNowOpen);

  kj::Promise<void> whenChanged() { return changed.wait(); }
  kj::Promise<void> whenOpen();

 private:
  bool open;
  uint64_t openingCount;
  Broadcast changed;
};

}  // namespace troupe::console
