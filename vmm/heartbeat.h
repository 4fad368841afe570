#pragma once

#include <kj/function.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>

#include "devices/virtio/vital_signs.h"
#include "vmm/thread_look.h"

namespace troupe {

// Decides whether one device process is hung, from its vital signs; where these stand still, from
// what its threads do. One that has no CPU to run on, or waits for a disk, is not hung, however
// long that takes: time is counted as CPU time it used, but for one that is stopped or sleeps.
//
// Looked at every LOOK, and every SOON while it is suspect, a process is known as hung within
// 500 ms, when it has a CPU.
class Heartbeat {
 public:
  static constexpr kj::Duration LOOK = 150 * kj::MILLISECONDS;
  static constexpr kj::Duration SOON = 50 * kj::MILLISECONDS;

  // `threads` looks at the process's threads, its main thread first.
  explicit Heartbeat(kj::Function<kj::Vector<ThreadLook>()> threads);
  KJ_DISALLOW_COPY(Heartbeat);

  // Why it is hung, as a fragment: "its event loop turns no more". None: it is well, or will show
  // in a moment.
  kj::Maybe<kj::StringPtr> look(kj::TimePoint now, virtio::VitalSigns::Beats beats);

  bool isSuspect() const { return suspicion != nullptr; }

  // Nothing that was seen before counts.
  void forget() {
    last = nullptr;
    suspicion = nullptr;
  }

 private:
  struct Suspicion {
    kj::Vector<ThreadLook> threads;  // as they were then
    // Since when its main thread is so, whenever it was looked at.
    kj::Maybe<kj::TimePoint> asleepSince;
    kj::Maybe<kj::TimePoint> stoppedSince;
  };

  kj::Maybe<kj::StringPtr> examine(Suspicion& was, kj::TimePoint now, bool loopStandsStill,
                                   uint64_t stuckThread);

  kj::Function<kj::Vector<ThreadLook>()> threads;
  kj::Maybe<virtio::VitalSigns::Beats> last;  // when it was last well
  kj::Maybe<Suspicion> suspicion;
};

}  // namespace troupe
