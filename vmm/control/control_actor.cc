#include "vmm/control/control_actor.h"

#include <kj/debug.h>

#include "vmm/observe/event_reader.h"
#include "vmm/words/user_error.h"

namespace troupe {

kj::Promise<void> ControlActor::status(StatusContext context) {
  requireVm().describe(context.getResults().initStatus());
  return kj::READY_NOW;
}

kj::Promise<void> ControlActor::stop(StopContext context) {
  auto params = context.getParams();
  if (params.getForce()) {
    requireVm().stop(kj::str("stopped through its control socket"));
    return kj::READY_NOW;
  }
  requireRoom().shutDown(params.getTimeoutMs() * kj::MILLISECONDS);
  context.allowCancellation();  // a guest that does not listen may take an hour
  return bounded(kj::NEVER_DONE);
}

kj::Promise<void> ControlActor::powerButton(PowerButtonContext) {
  return bounded(requireRoom().powerButton());
}

kj::Promise<void> ControlActor::counters(CountersContext context) {
  return bounded(requireRoom().counters().then([context](BrokerCounters counts) mutable {
    auto counters = context.getResults().initCounters();
    counters.setExits(counts.exits);
    counters.setNotifyExits(counts.notifyExits);
    counters.setDeviceCalls(counts.deviceCalls);
  }));
}

kj::Promise<void> ControlActor::inspectJails(InspectJailsContext context) {
  requireRoom();
  return bounded(lookWhileStill([this](auto& message) {
                   requireVm().inspectJails(message.template initRoot<VmJails>());
                 }).then([context](Message seen) mutable {
    context.getResults().setJails(seen->getRoot<VmJails>().asReader());
  }));
}

kj::Promise<void> ControlActor::graph(GraphContext context) {
  requireRoom();
  return bounded(lookWhileStill([this](auto& message) {
                   requireVm().describeGraph(message.template initRoot<VmGraph>());
                 }).then([context](Message seen) mutable {
    context.getResults().setGraph(seen->getRoot<VmGraph>().asReader());
  }));
}

// What is seen while a device is given another process is of two moments, so that is waited for;
// one whose processes follow one another for ever is left out in the end.
kj::Promise<ControlActor::Message> ControlActor::lookWhileStill(Look look) {
  return lookBefore(timer.now() + STILL_DEADLINE, kj::mv(look));
}

kj::Promise<ControlActor::Message> ControlActor::lookBefore(kj::TimePoint deadline, Look look) {
  bool isLate = timer.now() >= deadline;
  if (!isLate && !requireVm().isStill()) {
    return timer.afterDelay(STILL_STEP).then([this, deadline, look = kj::mv(look)]() mutable {
      return lookBefore(deadline, kj::mv(look));
    });
  }
  return inspectionTurn().then(
      [this, deadline, look = kj::mv(look)]() mutable -> kj::Promise<Message> {
        auto message = kj::heap<capnp::MallocMessageBuilder>();
        look(*message);
        // Somebody may have died since the last look at that, or while this one lasted.
        if (requireVm().isStill() || timer.now() >= deadline) return kj::mv(message);
        return lookBefore(deadline, kj::mv(look));
      });
}

// One is over before the next begins: looking waits for nothing.
kj::Promise<void> ControlActor::inspectionTurn() {
  auto turn = kj::max(timer.now(), nextInspection);
  nextInspection = turn + INSPECTION_PAUSE;
  return timer.atTime(turn);
}

kj::Promise<void> ControlActor::resizeDisk(ResizeDiskContext context) {
  auto& vm = requireRoom();
  auto params = context.getParams();
  KJ_REQUIRE(params.getDisk().size() <= LONGEST_DISK_ID, "no disk has such an id");
  auto resized = vm.resizeDisk(params.getDisk(), params.getBytes());
  return bounded(
      resized.then([context](uint64_t bytes) mutable { context.getResults().setBytes(bytes); }));
}

kj::Promise<void> ControlActor::balloon(BalloonContext context) {
  auto status = requireRoom().balloon(context.getParams().getRequest());
  return bounded(status.then([context](kj::Own<capnp::MallocMessageBuilder> message) mutable {
    context.getResults().setStatus(message->getRoot<BalloonStatus>().asReader());
  }));
}

kj::Promise<void> ControlActor::net(NetContext context) {
  auto& vm = requireRoom();
  auto params = context.getParams();
  KJ_REQUIRE(params.getDevice().size() <= LONGEST_DEVICE_NAME, "no device has such a name");
  auto done = vm.net(params.getDevice(), params.getWish());
  return bounded(
      done.then([context](kj::String device) mutable { context.getResults().setDevice(device); }));
}

kj::Promise<void> ControlActor::replaceDevice(ReplaceDeviceContext context) {
  auto& vm = requireRoom();
  auto params = context.getParams();
  KJ_REQUIRE(params.getDevice().size() <= LONGEST_DISK_ID, "no device has such a name");
  return bounded(
      vm.replaceDevice(params.getDevice(),
                       {kj::heapString(params.getBinary()), kj::heapString(params.getProfilePath()),
                        kj::heapArray<kj::byte>(params.getProfile()), params.getMayBeLooser()}));
}

kj::Promise<void> ControlActor::pause(PauseContext) {
  return bounded(requireRoom().pause());
}

kj::Promise<void> ControlActor::resume(ResumeContext) {
  return bounded(requireRoom().resume());
}

kj::Promise<void> ControlActor::reset(ResetContext) {
  return bounded(requireRoom().reset());
}

kj::Promise<void> ControlActor::load(LoadContext context) {
  auto& vm = requireVm();
  if (lastLoad.get() == nullptr || timer.now() >= nextLoad) {
    lastLoad = kj::heap<capnp::MallocMessageBuilder>();
    vm.describeLoad(lastLoad->initRoot<VmLoad>());
    nextLoad = timer.now() + LOAD_PAUSE;
  }
  context.getResults().setLoad(lastLoad->getRoot<VmLoad>().asReader());
  return kj::READY_NOW;
}

kj::Promise<void> ControlActor::events(EventsContext context) {
  auto& log = requireVm().events();
  if (log.readerCount() >= MOST_READERS) {
    UserError(codes::TOO_MANY_READERS,
              kj::str("the events of this VM have ", MOST_READERS, " readers, and no more at once"))
        .raise();
  }
  uint64_t after = context.getParams().getAfter();
  context.getResults().setReader(kj::heap<EventReaderActor>(log, after));
  return kj::READY_NOW;
}

RunningVm& ControlActor::requireVm() {
  KJ_IF_MAYBE (vm, living) {
    return *vm;
  }
  kj::throwFatalException(kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                                        kj::str("the VM has ended")));
}

RunningVm& ControlActor::requireRoom() {
  if (calls < MOST_CALLS) return requireVm();
  kj::throwFatalException(kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                                        kj::str("too many calls are under way")));
}

kj::Promise<void> ControlActor::bounded(kj::Promise<void> call) {
  calls++;
  return underWay.wrap(kj::mv(call)).attach(kj::defer([this]() { calls--; }));
}

void ControlActor::vmEnds() {
  living = nullptr;
  underWay.cancel(kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                                kj::str("the VM has ended")));
}

}  // namespace troupe
