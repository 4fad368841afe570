#pragma once

#include <kj/async.h>
#include <kj/function.h>
#include <kj/timer.h>

#include "protos/broker.capnp.h"
#include "vmm/config/on_reboot.h"
#include "vmm/vm/crash_limit.h"
#include "vmm/vm/guest_end.h"

namespace troupe {

// Is told what happens to a guest, as it happens.
class GuestWatch {
 public:
  virtual void guestEnded(const GuestEnd& end) = 0;
  virtual void guestPaused(bool isPaused) = 0;
  // `cause`: "asked", "guest", "crash" or "panic". `boots`: how often it was started anew.
  virtual void guestStartedAnew(kj::StringPtr cause, uint32_t boots) = 0;
};

// The course of one guest from its first boot to the end that stays: pauses it, and starts it anew
// when it resets itself, crashes or panics, or when its user wants that. The broker does the work
// and is believed in nothing: what it says late, twice or never changes only when this guest ends.
class GuestCourse {
 public:
  using RebootRequest = capnp::Request<Broker::RebootParams, Broker::RebootResults>;

  // A guest that keeps resetting itself boots ten times a second at most.
  static constexpr kj::Duration SHORTEST_BOOT = 100 * kj::MILLISECONDS;

  // `handFiles` puts kernel, initrd and command line into a request. `deadline`: of one reboot.
  // `watch` outlives this.
  GuestCourse(kj::Timer& timer, Broker::Client broker, kj::StringPtr name, OnReboot onReboot,
              kj::Function<void(RebootRequest&)> handFiles, kj::Duration deadline,
              kj::Maybe<GuestWatch&> watch = nullptr);
  KJ_DISALLOW_COPY(GuestCourse);

  // Resolves when the guest has ended for good. Throws when the broker is gone. To be called once.
  kj::Promise<void> untilEnd();

  kj::Promise<void> pause();
  kj::Promise<void> resume();

  // Starts the guest anew, as a reset button does; resolves when it has. One that is paused stays
  // so.
  kj::Promise<void> reset();

  // From now on no end of the guest is followed by another boot.
  void isLeaving() { leaving = true; }

  bool isPaused() const { return paused; }
  bool isRebooting() const { return underWay; }
  uint32_t reboots() const { return boots; }
  const GuestOutcome& outcome() const { return result; }

 private:
  kj::Promise<void> follow();
  kj::Promise<void> afterEnd(End::Reader end);
  bool startsAnew(const GuestEnd& end);
  kj::Promise<void> resetFor(kj::StringPtr cause);
  kj::Promise<void> startAnew(kj::StringPtr cause);
  void setPaused(bool isPaused);
  void cannotReboot(kj::Exception&& failure);

  kj::Timer& timer;
  Broker::Client broker;
  kj::String name;
  OnReboot onReboot;
  kj::Function<void(RebootRequest&)> handFiles;
  kj::Duration deadline;
  kj::Maybe<GuestWatch&> watch;
  CrashLimit limit;
  uint32_t boots = 0;  // that were asked for
  kj::TimePoint bootedAt;
  bool paused = false;
  bool leaving = false;
  GuestOutcome result;
  bool underWay = false;                        // a reboot
  kj::ForkedPromise<void> rebooting = nullptr;  // the last one
  kj::PromiseFulfillerPair<void> failed = kj::newPromiseAndFulfiller<void>();
  kj::Promise<void> failing = nullptr;
};

}  // namespace troupe
