#pragma once

#include <kj/array.h>

#include <cstdint>

#include "devices/net/offloads.h"

namespace troupe::net {

// What a tap is told beside frames: by its fds, one for each queue pair. Main thread.
class TapQueues {
 public:
  // Borrowed. Throws (TRP-net-…) unless each is a queue of a tap whose frames have a NetHeader.
  // They are attached or not as a process before this one has left them.
  explicit TapQueues(kj::ArrayPtr<const int> fds);

  // A process before this one may have attached and detached some of them since.
  void askAgain();

  // Which frames to the guest may be incomplete. False when the kernel knows no such.
  bool setOffloads(const Offloads& toGuest);

  // Whether flows are steered to a queue: no frame shall wait in one that nobody reads.
  bool attach(uint16_t pair);
  void detach(uint16_t pair);

 private:
  enum class State : uint8_t { ATTACHED, DETACHED, UNKNOWN };
  bool setQueue(uint16_t pair, short flag);

  kj::Array<int> fds;
  kj::Array<State> states;
};

}  // namespace troupe::net
