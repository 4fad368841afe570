#pragma once

#include <kj/timer.h>

#include "protos/control.capnp.h"
#include "vmm/vm_model.h"

namespace troupe {

// Serves the interface Vm of protos/control.capnp, the model behind a VM's control socket. Whoever
// calls may be a hijacked front end: an answer costs little, at most MOST_CALLS that cost more are
// under way at once, the jails are looked at INSPECTION_PAUSE apart and the load LOAD_PAUSE apart,
// however often that is asked for, and MOST_READERS read its events.
class ControlActor final: public Vm::Server {
 public:
  ControlActor(RunningVm& vm, kj::Timer& timer) : vm(vm), timer(timer) {}

  static constexpr uint32_t MOST_CALLS = 16;
  static constexpr kj::Duration INSPECTION_PAUSE = 100 * kj::MILLISECONDS;
  static constexpr kj::Duration LOAD_PAUSE = 100 * kj::MILLISECONDS;
  static constexpr uint32_t MOST_READERS = 8;

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

  void requireRoom() const;
  kj::Promise<void> bounded(kj::Promise<void> call);
  kj::Promise<void> inspectionTurn();

  RunningVm& vm;
  kj::Timer& timer;
  kj::TimePoint nextInspection = kj::origin<kj::TimePoint>();
  uint32_t calls = 0;
  kj::Own<capnp::MallocMessageBuilder> lastLoad;
  kj::TimePoint nextLoad = kj::origin<kj::TimePoint>();
};

}  // namespace troupe
