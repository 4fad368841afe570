#include "vmm/heartbeat.h"

#include <kj/debug.h>

namespace troupe {

namespace {

// CPU time without a beat: what a device does in one turn of its loop takes a hundredth of it.
constexpr kj::Duration MOST_CPU = 150 * kj::MILLISECONDS;
// Asleep without a beat: the timer that ends its sleep was due long ago.
constexpr kj::Duration LONGEST_SLEEP = 150 * kj::MILLISECONDS;

bool sleeps(const ThreadLook& thread) {
  return thread.state == 'S';
}

bool isStopped(const ThreadLook& thread) {
  return thread.state == 'T' || thread.state == 't';
}

// For how long it has been so.
kj::Duration note(kj::Maybe<kj::TimePoint>& since, bool isSo, kj::TimePoint now) {
  if (!isSo) {
    since = nullptr;
    return 0 * kj::SECONDS;
  }
  KJ_IF_MAYBE (begun, since) {
    return now - *begun;
  }
  since = now;
  return 0 * kj::SECONDS;
}

kj::Duration usedSince(const kj::Vector<ThreadLook>& before, const ThreadLook& thread) {
  for (auto& one : before) {
    if (one.id == thread.id) return thread.cpuTime - one.cpuTime;
  }
  return 0 * kj::SECONDS;
}

}  // namespace

Heartbeat::Heartbeat(kj::Function<kj::Vector<ThreadLook>()> threads) : threads(kj::mv(threads)) {}

kj::Maybe<kj::StringPtr> Heartbeat::look(kj::TimePoint now, virtio::VitalSigns::Beats beats) {
  bool isNew = false;
  if (last == nullptr) {
    last = beats;
    isNew = true;
  }
  auto& before = KJ_ASSERT_NONNULL(last);
  if (isNew || (beats.loop != before.loop && beats.engine != before.engine)) {
    last = beats;
    suspicion = nullptr;
    return nullptr;
  }
  KJ_IF_MAYBE (was, suspicion) {
    return examine(*was, now, beats.loop == before.loop, beats.stuckThread);
  }
  auto seen = threads();
  if (seen.size() == 0) return nullptr;  // it has ended, which shows otherwise
  auto& begun = suspicion.emplace(Suspicion{kj::mv(seen), nullptr, nullptr});
  note(begun.asleepSince, sleeps(begun.threads[0]), now);
  note(begun.stoppedSince, isStopped(begun.threads[0]), now);
  return nullptr;
}

kj::Maybe<kj::StringPtr> Heartbeat::examine(Suspicion& was, kj::TimePoint now, bool loopStandsStill,
                                            uint64_t stuckThread) {
  auto seen = threads();
  if (seen.size() == 0) return nullptr;
  if (!loopStandsStill) {
    // Its loop goes on, so it is suspect for one of its other threads alone.
    was.asleepSince = was.stoppedSince = nullptr;
    for (auto& thread : seen) {
      bool isIt = stuckThread > 0 && thread.name.endsWith(kj::str("-q", stuckThread - 1));
      if (isIt && usedSince(was.threads, thread) >= MOST_CPU) {
        return "one of its queues' threads turns no more"_kj;
      }
    }
    return nullptr;
  }
  if (note(was.stoppedSince, isStopped(seen[0]), now) > 0 * kj::SECONDS) return "it is stopped"_kj;
  if (usedSince(was.threads, seen[0]) >= MOST_CPU) return "its event loop turns no more"_kj;
  if (note(was.asleepSince, sleeps(seen[0]), now) >= LONGEST_SLEEP) {
    return "it sleeps and does not wake up"_kj;
  }
  return nullptr;
}

}  // namespace troupe
