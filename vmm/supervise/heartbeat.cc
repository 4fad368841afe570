#include "vmm/supervise/heartbeat.h"

#include <kj/debug.h>

namespace troupe {

namespace {

using State = virtio::Sign::State;

// CPU time without a sign: what a thread does between two of them takes a hundredth of it.
constexpr kj::Duration MOST_CPU = 150 * kj::MILLISECONDS;
// Asleep, though not where it waits for events; and while another of its threads has, or waits for,
// what it may be waiting for: a CPU on a busy host, a disk.
constexpr kj::Duration LONGEST_SLEEP = 150 * kj::MILLISECONDS;
constexpr kj::Duration LONGEST_FOR_ANOTHER = 2 * kj::SECONDS;
// So much CPU time of a process is worth a look at all its threads, which takes some of `troupe`'s.
constexpr kj::Duration WORTH_A_LOOK = 50 * kj::MILLISECONDS;
// A look so long after the one before: this process had no CPU, or was stopped, and those it looks
// at may have been so with it.
constexpr kj::Duration MISSED = 1 * kj::SECONDS;
// On a host whose scheduler has a coarse clock something may happen while it stands still: so many
// looks, and it is made sure of again.
constexpr uint32_t MOST_AT_REST = 8;

bool isAsleep(const ThreadLook& thread) {
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

}  // namespace

kj::Maybe<kj::StringPtr> Heartbeat::look(kj::TimePoint now, const virtio::VitalSigns& signs) {
  kj::Duration cpuTime;
  KJ_IF_MAYBE (used, process.cpuTime()) {
    cpuTime = *used;
  } else {
    return nullptr;  // it has ended, which shows otherwise
  }
  auto loop = signs.sign(0);
  if (last == nullptr) {
    last = Seen{now, loop, cpuTime, cpuTime, {}};
    return nullptr;
  }
  auto& seen = KJ_ASSERT_NONNULL(last);
  if (now - seen.time > MISSED) seen.stand.asleepSince = seen.stand.stoppedSince = nullptr;
  seen.time = now;
  bool isClockStill = cpuTime == seen.cpuTime;
  bool isStill = isClockStill && loop == seen.loop;
  if (isStill && looksAtRest > 0 && looksAtRest < MOST_AT_REST) {
    looksAtRest++;
    return nullptr;
  }
  looksAtRest = 0;
  isSuspect = false;
  seen.cpuTime = cpuTime;
  if (loop != seen.loop) {
    seen.loop = loop;
    seen.stand = {};
    isSuspect = loop.state() == State::WORKS;
  } else {
    KJ_IF_MAYBE (why, examineLoop(seen.stand, now, loop, isClockStill)) {
      return *why;
    }
  }
  if (cpuTime - seen.looked < WORTH_A_LOOK) return nullptr;
  seen.looked = cpuTime;
  return examineOthers(signs);
}

// That of a loop which has not turned since the look before.
kj::Maybe<kj::StringPtr> Heartbeat::examineLoop(Stand& stand, kj::TimePoint now, virtio::Sign sign,
                                                bool isClockStill) {
  KJ_IF_MAYBE (thread, process.mainThread()) {
    auto freeze = isAsleep(*thread) ? process.freeze() : Freeze::NONE;
    if (freeze == Freeze::OF_OTHERS_TOO) {
      stand = {};
      return nullptr;
    }
    bool isHeld = isStopped(*thread) || freeze == Freeze::OF_IT_ALONE;
    bool isLong = note(stand.stoppedSince, isHeld, now) > 0 * kj::SECONDS;
    if (isLong) return freeze == Freeze::NONE ? "it is stopped"_kj : "it is frozen"_kj;
    if (sign.state() != State::NONE) {
      auto& before = stand.cpuTime == nullptr ? stand.cpuTime.emplace(thread->cpuTime)
                                              : KJ_ASSERT_NONNULL(stand.cpuTime);
      if (thread->cpuTime - before >= MOST_CPU) return "its event loop turns no more"_kj;
      isSuspect |= thread->cpuTime > before;
      bool mayNot = sign.state() == State::WORKS && isAsleep(*thread);
      auto asleep = note(stand.asleepSince, mayNot, now);
      bool isHung = asleep >= LONGEST_FOR_ANOTHER || (asleep >= LONGEST_SLEEP && allSleep());
      if (isHung) return "it sleeps and does not wake up"_kj;
    }
    isSuspect |= stand.stoppedSince != nullptr || stand.asleepSince != nullptr;
    bool waits = sign.state() == State::WAITS && isAsleep(*thread) && !isHeld;
    if (waits && isClockStill) looksAtRest = 1;
  }
  return nullptr;
}

bool Heartbeat::allSleep() {
  for (auto& thread : process.threads()) {
    if (!isAsleep(thread)) return false;
  }
  return true;
}

kj::Maybe<kj::StringPtr> Heartbeat::examineOthers(const virtio::VitalSigns& signs) {
  kj::Vector<Other> found;
  for (auto& thread : process.threads()) {
    KJ_IF_MAYBE (number, virtio::VitalSigns::threadOf(thread.name)) {
      auto now = Other{thread.id, signs.sign(*number), thread.cpuTime};
      auto state = now.sign.state();
      for (auto& before : others) {
        bool isSame = before.id == now.id && before.sign == now.sign;
        if (isSame && state != State::NONE && state != State::LABOURS) {
          now.cpuTime = before.cpuTime;
        }
      }
      auto used = thread.cpuTime - now.cpuTime;
      if (used >= MOST_CPU) return "one of its threads turns no more"_kj;
      isSuspect |= used > 0 * kj::SECONDS;
      found.add(now);
    }
  }
  others = kj::mv(found);
  return nullptr;
}

}  // namespace troupe
