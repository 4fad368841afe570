#include "vmm/observe/event_text.h"

#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

kj::String safe(kj::StringPtr text) {
  return escape(text, 400);
}

void writeWhat(VmEvent::Reader event, JsonLine& line) {
  switch (event.which()) {
    case VmEvent::STARTED:
      line.text("event", "started");
      return;
    case VmEvent::DEVICE_DIED: {
      auto what = event.getDeviceDied();
      line.text("event", "device-died")
          .text("device", safe(what.getDevice()))
          .number("pid", what.getPid())
          .text("cause", safe(what.getCause()))
          .truth("replaced", what.getIsReplaced())
          .truth("down", what.getStaysDown());
      return;
    }
    case VmEvent::DEVICE_REPLACED: {
      auto what = event.getDeviceReplaced();
      line.text("event", "device-replaced")
          .text("device", safe(what.getDevice()))
          .number("pid", what.getPid())
          .number("restarts", uint64_t(what.getRestarts()));
      return;
    }
    case VmEvent::REFUSED_SYSCALL: {
      auto what = event.getRefusedSyscall();
      line.text("event", "refused-syscall")
          .text("actor", safe(what.getActor()))
          .number("pid", what.getPid())
          .text("stage", safe(what.getStage()))
          .text("call", safe(what.getCall()));
      return;
    }
    case VmEvent::REQUEST_PUT_ASIDE: {
      auto what = event.getRequestPutAside();
      line.text("event", "request-put-aside")
          .text("device", safe(what.getDevice()))
          .text("detail", safe(what.getDetail()));
      return;
    }
    case VmEvent::GUEST_PANICKED:
      line.text("event", "guest-panicked")
          .text("detail", safe(event.getGuestPanicked().getDetail()));
      return;
    case VmEvent::GUEST_CRASHED:
      line.text("event", "guest-crashed").text("detail", safe(event.getGuestCrashed().getDetail()));
      return;
    case VmEvent::PAUSED:
      line.text("event", "paused");
      return;
    case VmEvent::RESUMED:
      line.text("event", "resumed");
      return;
    case VmEvent::RESET:
      line.text("event", "reset")
          .text("cause", safe(event.getReset().getCause()))
          .number("boot", uint64_t(event.getReset().getBoot()));
      return;
    case VmEvent::BALLOON_CHANGED:
      line.text("event", "balloon-changed")
          .number("guestBytes", event.getBalloonChanged().getGuestBytes());
      return;
    case VmEvent::RESIZED:
      line.text("event", "resized")
          .text("disk", safe(event.getResized().getDisk()))
          .number("bytes", event.getResized().getBytes());
      return;
    case VmEvent::ENDED: {
      auto what = event.getEnded();
      line.text("event", "ended")
          .number("exitCode", uint64_t(what.getExitCode()))
          .text("cause", safe(what.getCause()))
          .text("message", safe(what.getMessage()));
      return;
    }
  }
  line.text("event", "unknown");  // of a newer `troupe`
}

}  // namespace

kj::String eventLine(VmEvent::Reader event) {
  JsonLine line;
  line.number("sequence", event.getSequence()).number("monotonicNs", event.getMonotonicNs());
  writeWhat(event, line);
  return line.render();
}

kj::String lostLine(uint64_t count) {
  return JsonLine().text("event", "lost").number("count", count).render();
}

}  // namespace troupe
