#pragma once

#include <kj/common.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>

#include "devices/virtio/vital_signs.h"
#include "vmm/actors/thread_look.h"

namespace troupe {

// Decides whether one device process is hung, from its vital signs; where these stand still, from
// what its threads do. One that has no CPU to run on, or waits for a disk, is not hung, however
// long that takes: time is counted as CPU time it used, but for one that is stopped or sleeps.
//
// One that somebody froze is hung as one that was stopped is; but of those that were frozen
// together with others of their VM, somebody wants the whole of it to stand still.
//
// One that waits for events is at rest: it has stood still since it was seen to sleep there, and so
// has the clock of the CPU time it used. Whatever befalls a process moves that clock, a signal that
// stops it included; so while it stands still there is nothing to look for, and neither side does
// anything. What the process itself says is believed of none that uses CPU time.
//
// Looked at every pause(), a process is known as hung within 500 ms, when it has a CPU.
class Heartbeat {
 public:
  static constexpr kj::Duration LOOK = 150 * kj::MILLISECONDS;
  static constexpr kj::Duration SOON = 50 * kj::MILLISECONDS;  // while it is suspect
  static constexpr kj::Duration AT_REST = 200 * kj::MILLISECONDS;

  // Outlives this object.
  explicit Heartbeat(ProcessLook& process) : process(process) {}
  KJ_DISALLOW_COPY(Heartbeat);

  // Why it is hung, as a fragment: "its event loop turns no more". None: it is well, or will show
  // in a moment.
  kj::Maybe<kj::StringPtr> look(kj::TimePoint now, const virtio::VitalSigns& signs);

  // Until the next look.
  kj::Duration pause() const { return isSuspect ? SOON : looksAtRest > 0 ? AT_REST : LOOK; }

  // Nothing that was seen before counts.
  void forget() {
    last = nullptr;
    others.clear();
    isSuspect = false;
    looksAtRest = 0;
  }

 private:
  // The main thread, since it was first seen to stand where it stands.
  struct Stand {
    kj::Maybe<kj::Duration> cpuTime;  // its own, when it was first looked at
    kj::Maybe<kj::TimePoint> asleepSince;
    kj::Maybe<kj::TimePoint> stoppedSince;  // or frozen
  };
  struct Seen {
    kj::TimePoint time;
    virtio::Sign loop;
    kj::Duration cpuTime;  // of the whole process
    kj::Duration looked;   // the same when its other threads were looked at last
    Stand stand;
  };
  // Another thread, as it was when its sign was first seen.
  struct Other {
    pid_t id;
    virtio::Sign sign;
    kj::Duration cpuTime;
  };

  kj::Maybe<kj::StringPtr> examineLoop(Stand& stand, kj::TimePoint now, virtio::Sign sign,
                                       bool isClockStill);
  bool allSleep();
  kj::Maybe<kj::StringPtr> examineOthers(const virtio::VitalSigns& signs);

  ProcessLook& process;
  kj::Maybe<Seen> last;
  kj::Vector<Other> others;
  bool isSuspect = false;
  uint32_t looksAtRest = 0;  // in a row
};

}  // namespace troupe
