#pragma once

#include "vmm/actor.h"
#include "vmm/guest_course.h"
#include "vmm/observe/event_log.h"
#include "vmm/vm_model.h"

namespace troupe {

// Writes down what happens to one VM, in the order in which `troupe` learns of it. Words of others
// are cut and escaped.
class EventNotes final: public GuestWatch {
 public:
  // `log` outlives this.
  explicit EventNotes(EventLog& log) : log(log) {}
  KJ_DISALLOW_COPY(EventNotes);

  void started();

  // One that was lost, and whether another is to take its place. The same process counts once.
  void died(Actor& actor, bool isReplaced);
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
