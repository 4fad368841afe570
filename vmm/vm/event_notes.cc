#include "vmm/vm/event_notes.h"

#include "vmm/words/quote.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

kj::String safe(kj::StringPtr text) {
  return escape(text, EventLog::LONGEST_TEXT);
}

kj::StringPtr causeOf(ExitCode exit) {
  switch (exit) {
    case ExitCode::POWERED_OFF:
      return "powered-off"_kj;
    case ExitCode::GUEST_RESET:
      return "guest-reset"_kj;
    case ExitCode::GUEST_CRASHED:
      return "guest-crashed"_kj;
    case ExitCode::GUEST_PANICKED:
      return "guest-panicked"_kj;
    case ExitCode::STOPPED:
      return "stopped"_kj;
    case ExitCode::DEVICE_LOST:
      return "device-lost"_kj;
    default:
      return "broker-failed"_kj;
  }
}

}  // namespace

void EventNotes::started() {
  log.add([](VmEvent::Builder event) { event.setStarted(); });
}

void EventNotes::died(Actor& actor, AfterDeath next, kj::Maybe<kj::StringPtr> cause) {
  pid_t pid = actor.child().pid();
  if (pid == lastDead) return;
  lastDead = pid;
  KJ_IF_MAYBE (refused, actor.child().refusedCall()) {
    log.add([&](VmEvent::Builder event) {
      auto what = event.initRefusedSyscall();
      what.setActor(actor.name());
      what.setPid(pid);
      what.setStage(safe(refused->stage));
      what.setCall(safe(refused->call));
    });
  }
  log.add([&](VmEvent::Builder event) {
    auto what = event.initDeviceDied();
    what.setDevice(actor.name());
    what.setPid(pid);
    KJ_IF_MAYBE (said, cause) {
      what.setCause(*said);
    } else KJ_IF_MAYBE (status, actor.waitStatus()) {
      what.setCause(describeWaitStatus(*status));
    } else {
      what.setCause("is lost to the broker");
    }
    what.setIsReplaced(next == AfterDeath::REPLACED);
    what.setStaysDown(next == AfterDeath::STAYS_DOWN);
  });
}

void EventNotes::putAside(kj::StringPtr device, kj::StringPtr detail) {
  log.add([&](VmEvent::Builder event) {
    auto what = event.initRequestPutAside();
    what.setDevice(device);
    what.setDetail(safe(detail));
  });
}

void EventNotes::replaced(Actor& actor, uint32_t restarts) {
  log.add([&](VmEvent::Builder event) {
    auto what = event.initDeviceReplaced();
    what.setDevice(actor.name());
    what.setPid(actor.child().pid());
    what.setRestarts(restarts);
  });
}

void EventNotes::balloonChanged(uint64_t guestBytes) {
  log.add([&](VmEvent::Builder event) { event.initBalloonChanged().setGuestBytes(guestBytes); });
}

void EventNotes::resized(kj::StringPtr disk, uint64_t bytes) {
  log.add([&](VmEvent::Builder event) {
    auto what = event.initResized();
    what.setDisk(safe(disk));
    what.setBytes(bytes);
  });
}

void EventNotes::ended(const VmEnd& end) {
  log.add([&](VmEvent::Builder event) {
    auto what = event.initEnded();
    what.setExitCode(static_cast<uint8_t>(end.exit));
    what.setCause(causeOf(end.exit));
    what.setMessage(safe(end.message));
  });
  log.end();
}

void EventNotes::guestEnded(const GuestEnd& end) {
  if (end.reason == EndReason::PANICKED) {
    log.add([&](VmEvent::Builder event) { event.initGuestPanicked().setDetail(safe(end.detail)); });
  } else if (end.reason == EndReason::CRASHED) {
    log.add([&](VmEvent::Builder event) { event.initGuestCrashed().setDetail(safe(end.detail)); });
  }
}

void EventNotes::guestPaused(bool isPaused) {
  log.add([&](VmEvent::Builder event) {
    if (isPaused) {
      event.setPaused();
    } else {
      event.setResumed();
    }
  });
}

void EventNotes::guestStartedAnew(kj::StringPtr cause, uint32_t boots) {
  log.add([&](VmEvent::Builder event) {
    auto what = event.initReset();
    what.setCause(cause);
    what.setBoot(boots);
  });
}

}  // namespace troupe
