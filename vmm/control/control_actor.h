#pragma once

#include <kj/async.h>
#include <kj/timer.h>

#include "protos/control.capnp.h"
#include "vmm/control/vm_model.h"

namespace troupe {

// Serves the interface Vm of protos/control.capnp, the model behind a VM's control socket. Whoever
// calls may be a hijacked front end: an answer costs little, at most MOST_CALLS that cost more are
// under way at once, the jails are looked at INSPECTION_PAUSE apart and the load LOAD_PAUSE apart,
// however often that is asked for, and MOST_READERS read its events.
//
// A call goes on when whoever made it has gone, so some outlive the connection they came by: those
// end with vmEnds().
class ControlActor final: public Vm::Server {
 public:
  ControlActor(RunningVm& vm, kj::Timer& timer) : living(vm), timer(timer) {}

  // The VM is about to go: what is under way ends, and nothing gets to it any more.
  void vmEnds();

  static constexpr uint32_t MOST_CALLS = 16;
  static constexpr kj::Duration INSPECTION_PAUSE = 100 * kj::MILLISECONDS;
  static constexpr kj::Duration LOAD_PAUSE = 100 * kj::MILLISECONDS;
  static constexpr uint32_t MOST_READERS = 8;
  // A device that is being given another process is waited for so long before it is looked at.
  static constexpr kj::Duration STILL_DEADLINE = 3 * kj::SECONDS;
  static constexpr kj::Duration STILL_STEP = 5 * kj::MILLISECONDS;

  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> stop(StopContext context) override;
  kj::Promise<void> powerButton(PowerButtonContext context) override;
  kj::Promise<void> counters(CountersContext context) override;
  kj::Promise<void> inspectJails(InspectJailsContext context) override;
  kj::Promise<void> resizeDisk(ResizeDiskContext context) override;
  kj::Promise<void> balloon(BalloonContext context) override;
  kj::Promise<void> pause(PauseContext context) override;
  kj::Promise<void> resume(ResumeContext context) override;
  kj::Promise<void> reset(ResetContext context) override;
  kj::Promise<void> graph(GraphContext context) override;
  kj::Promise<void> load(LoadContext context) override;
  kj::Promise<void> events(EventsContext context) override;
  kj::Promise<void> net(NetContext context) override;
  kj::Promise<void> replaceDevice(ReplaceDeviceContext context) override;

 private:
  static constexpr size_t LONGEST_DISK_ID = 256;
  static constexpr size_t LONGEST_DEVICE_NAME = 32;

  RunningVm& requireVm();
  RunningVm& requireRoom();
  kj::Promise<void> bounded(kj::Promise<void> call);
  kj::Promise<void> inspectionTurn();
  using Message = kj::Own<capnp::MallocMessageBuilder>;
  using Look = kj::Function<void(capnp::MallocMessageBuilder&)>;
  kj::Promise<Message> lookWhileStill(Look look);
  kj::Promise<Message> lookBefore(kj::TimePoint deadline, Look look);

  kj::Maybe<RunningVm&> living;
  kj::Timer& timer;
  kj::TimePoint nextInspection = kj::origin<kj::TimePoint>();
  uint32_t calls = 0;
  kj::Canceler underWay;
  kj::Own<capnp::MallocMessageBuilder> lastLoad;
  kj::TimePoint nextLoad = kj::origin<kj::TimePoint>();
};

// A VM's ControlActor, which others hold, too, for as long as the VM lives.
class VmControl {
 public:
  VmControl(RunningVm& vm, kj::Timer& timer) : VmControl(kj::heap<ControlActor>(vm, timer)) {}
  ~VmControl() noexcept(false) { actor.vmEnds(); }
  KJ_DISALLOW_COPY(VmControl);

  Vm::Client client() { return ours; }

 private:
  explicit VmControl(kj::Own<ControlActor> made) : actor(*made), ours(kj::mv(made)) {}

  ControlActor& actor;
  Vm::Client ours;
};

}  // namespace troupe
