#pragma once

#include "vmm/actors/actor.h"
#include "vmm/control/vm_model.h"
#include "vmm/observe/event_log.h"
#include "vmm/supervise/after_death.h"
#include "vmm/vm/guest_course.h"

namespace troupe {

// Writes down what happens to one VM, in the order in which `troupe` learns of it. Words of others
// are cut and escaped.
class EventNotes final: public GuestWatch {
 public:
  // `log` outlives this.
  explicit EventNotes(EventLog& log) : log(log) {}
  KJ_DISALLOW_COPY(EventNotes);

  void started();

  // One that was lost, and what becomes of it. The same process counts once. `cause`: what is to be
  // said of it in place of how it ended.
  void died(Actor& actor, AfterDeath next, kj::Maybe<kj::StringPtr> cause = nullptr);
  void putAside(kj::StringPtr device, kj::StringPtr detail);
  void replaced(Actor& actor, uint32_t restarts);

  void balloonChanged(uint64_t guestBytes);
  void resized(kj::StringPtr disk, uint64_t bytes);

  // The last one.
  void ended(const VmEnd& end);

  void guestEnded(const GuestEnd& end) override;
  void guestPaused(bool isPaused) override;
  void guestStartedAnew(kj::StringPtr cause, uint32_t boots) override;

 private:
  EventLog& log;
  pid_t lastDead = 0;
};

}  // namespace troupe
