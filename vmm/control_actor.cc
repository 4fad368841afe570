#include "vmm/control_actor.h"

#include <kj/debug.h>

#include "vmm/observe/event_reader.h"
#include "vmm/user_error.h"

namespace troupe {

kj::Promise<void> ControlActor::status(StatusContext context) {
  vm.describe(context.getResults().initStatus());
  return kj::READY_NOW;
}

kj::Promise<void> ControlActor::stop(StopContext context) {
  auto params = context.getParams();
  if (params.getForce()) {
    vm.stop(kj::str("stopped through its control socket"));
    return kj::READY_NOW;
  }
  requireRoom();
  vm.shutDown(params.getTimeoutMs() * kj::MILLISECONDS);
  return bounded(kj::NEVER_DONE);
}

kj::Promise<void> ControlActor::powerButton(PowerButtonContext) {
  requireRoom();
  return bounded(vm.powerButton());
}

kj::Promise<void> ControlActor::counters(CountersContext context) {
  requireRoom();
  return bounded(vm.counters().then([context](BrokerCounters counts) mutable {
    auto counters = context.getResults().initCounters();
    counters.setExits(counts.exits);
    counters.setNotifyExits(counts.notifyExits);
    counters.setDeviceCalls(counts.deviceCalls);
  }));
}

kj::Promise<void> ControlActor::inspectJails(InspectJailsContext context) {
  requireRoom();
  return bounded(inspectionTurn().then(
      [this, context]() mutable { vm.inspectJails(context.getResults().initJails()); }));
}

kj::Promise<void> ControlActor::graph(GraphContext context) {
  requireRoom();
  return bounded(inspectionTurn().then(
      [this, context]() mutable { vm.describeGraph(context.getResults().initGraph()); }));
}

// One is over before the next begins: looking waits for nothing.
kj::Promise<void> ControlActor::inspectionTurn() {
  auto turn = kj::max(timer.now(), nextInspection);
  nextInspection = turn + INSPECTION_PAUSE;
  return timer.atTime(turn);
}

kj::Promise<void> ControlActor::resizeDisk(ResizeDiskContext context) {
  requireRoom();
  auto params = context.getParams();
  KJ_REQUIRE(params.getDisk().size() <= LONGEST_DISK_ID, "no disk has such an id");
  auto resized = vm.resizeDisk(params.getDisk(), params.getBytes());
  return bounded(
      resized.then([context](uint64_t bytes) mutable { context.getResults().setBytes(bytes); }));
}

kj::Promise<void> ControlActor::balloon(BalloonContext context) {
  requireRoom();
  auto status = vm.balloon(context.getParams().getRequest());
  return bounded(status.then([context](kj::Own<capnp::MallocMessageBuilder> message) mutable {
    context.getResults().setStatus(message->getRoot<BalloonStatus>().asReader());
  }));
}

kj::Promise<void> ControlActor::net(NetContext context) {
  requireRoom();
  auto params = context.getParams();
  KJ_REQUIRE(params.getDevice().size() <= LONGEST_DEVICE_NAME, "no device has such a name");
  auto done = vm.net(params.getDevice(), params.getWish());
  return bounded(
      done.then([context](kj::String device) mutable { context.getResults().setDevice(device); }));
}

kj::Promise<void> ControlActor::replaceDevice(ReplaceDeviceContext context) {
  requireRoom();
  auto params = context.getParams();
  KJ_REQUIRE(params.getDevice().size() <= LONGEST_DISK_ID, "no device has such a name");
  return bounded(
      vm.replaceDevice(params.getDevice(),
                       {kj::heapString(params.getBinary()), kj::heapString(params.getProfilePath()),
                        kj::heapArray<kj::byte>(params.getProfile()), params.getMayBeLooser()}));
}

kj::Promise<void> ControlActor::pause(PauseContext) {
  requireRoom();
  return bounded(vm.pause());
}

kj::Promise<void> ControlActor::resume(ResumeContext) {
  requireRoom();
  return bounded(vm.resume());
}

kj::Promise<void> ControlActor::reset(ResetContext) {
  requireRoom();
  return bounded(vm.reset());
}

kj::Promise<void> ControlActor::load(LoadContext context) {
  if (lastLoad.get() == nullptr || timer.now() >= nextLoad) {
    lastLoad = kj::heap<capnp::MallocMessageBuilder>();
    vm.describeLoad(lastLoad->initRoot<VmLoad>());
    nextLoad = timer.now() + LOAD_PAUSE;
  }
  context.getResults().setLoad(lastLoad->getRoot<VmLoad>().asReader());
  return kj::READY_NOW;
}

kj::Promise<void> ControlActor::events(EventsContext context) {
  auto& log = vm.events();
  if (log.readerCount() >= MOST_READERS) {
    UserError(codes::TOO_MANY_READERS,
              kj::str("the events of this VM have ", MOST_READERS, " readers, and no more at once"))
        .raise();
  }
  uint64_t after = context.getParams().getAfter();
  context.getResults().setReader(kj::heap<EventReaderActor>(log, after));
  return kj::READY_NOW;
}

void ControlActor::requireRoom() const {
  if (calls < MOST_CALLS) return;
  kj::throwFatalException(kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                                        kj::str("too many calls are under way")));
}

kj::Promise<void> ControlActor::bounded(kj::Promise<void> call) {
  calls++;
  return call.attach(kj::defer([this]() { calls--; }));
}

}  // namespace troupe
