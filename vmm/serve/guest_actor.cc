#include "vmm/serve/guest_actor.h"

#include <kj/debug.h>

#include "vmm/files/run_folder.h"
#include "vmm/serve/guest_line.h"
#include "vmm/serve/vsock_endpoint_actor.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr kj::Duration STOP_PATIENCE = 30 * kj::SECONDS;  // as `troupe stop` has by default

}  // namespace

RunningVm& requireVm(Instance& guest) {
  KJ_IF_MAYBE (vm, guest.vm()) {
    return *vm;
  }
  bool isOver = guest.outcome() != nullptr;
  UserError(codes::GUEST_ENDED, kj::str("the guest with cid ", guest.cid(),
                                        isOver ? " has ended" : " has not been started yet"))
      .raise();
}

GuestActor::GuestActor(kj::Own<Instance> guest, kj::Own<VsockExchange> sockets,
                       kj::Own<Session> session, kj::Own<Session::Thing> counted)
    : guest(kj::mv(guest)),
      sockets(kj::mv(sockets)),
      session(kj::mv(session)),
      counted(kj::mv(counted)) {}

kj::Promise<void> GuestActor::getSerial(GetSerialContext context) {
  return guest->onLaunched().then([this, context]() mutable {
    auto line = connectToLine(requireVm(*guest).name(), GuestLine::SERIAL);
    context.getResults().setSocket(session->hand(kj::mv(line)));
  });
}

kj::Promise<void> GuestActor::getConsole(GetConsoleContext context) {
  return guest->onLaunched().then([this, context]() mutable {
    auto line = connectToLine(requireVm(*guest).name(), GuestLine::CONSOLE);
    context.getResults().setSocket(session->hand(kj::mv(line)));
  });
}

kj::Promise<void> GuestActor::getHostVsockEndpoint(GetHostVsockEndpointContext context) {
  return guest->onLaunched().then([this, context]() mutable {
    if (!sockets->has(guest->cid())) {
      UserError(codes::NO_VSOCK,
                kj::str("the guest with cid ", guest->cid(), " has no socket device"))
          .raise();
    }
    context.getResults().setEndpoint(
        kj::heap<VsockEndpointActor>(kj::addRef(*sockets), kj::addRef(*session)));
  });
}

kj::Promise<void> GuestActor::stop(StopContext context) {
  bool force = context.getParams().getForce();
  context.allowCancellation();
  if (guest->outcome() != nullptr) return kj::READY_NOW;
  if (force || guest->vm() == nullptr) {
    guest->stop(kj::str("stopped through its realm"));
  } else {
    requireVm(*guest).shutDown(STOP_PATIENCE);
  }
  return guest->onEnd();
}

kj::Promise<void> GuestActor::pause(PauseContext) {
  guest->requireRoom();
  return guest->bounded(requireVm(*guest).pause());
}

kj::Promise<void> GuestActor::resume(ResumeContext) {
  guest->requireRoom();
  return guest->bounded(requireVm(*guest).resume());
}

kj::Promise<void> GuestActor::waitForEnd(WaitForEndContext context) {
  context.allowCancellation();
  return guest->onEnd().then([this, context]() mutable {
    auto& outcome = KJ_ASSERT_NONNULL(guest->outcome());
    auto end = context.getResults().initEnd();
    end.setExitCode(uint8_t(outcome.exit));
    end.setReason(outcome.message.size() > 0 ? kj::StringPtr(outcome.message)
                                             : "the guest powered off"_kj);
  });
}

kj::Promise<void> GuestActor::waitForStart(WaitForStartContext context) {
  context.allowCancellation();
  return guest->onRunning().then([this, context]() mutable {
    constexpr size_t MOST_NOTES = 32;  // words of a bundle are as many as its author likes
    auto& vm = requireVm(*guest);
    context.getResults().setName(vm.name());
    auto notes = vm.notes();
    auto list = context.getResults().initNotes(kj::uint(kj::min(notes.size(), MOST_NOTES)));
    for (auto i : kj::indices(list))
      list.set(i, notes[i]);
  });
}

}  // namespace troupe::realm
