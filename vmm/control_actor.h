#pragma once

#include "protos/control.capnp.h"
#include "vmm/vm_model.h"

namespace troupe {

// Serves the interface Vm of protos/control.capnp, the model behind a VM's control socket. Whoever
// calls may be a hijacked front end: an answer costs little and at most MOST_CALLS to the broker
// are under way at once.
class ControlActor final: public Vm::Server {
 public:
  explicit ControlActor(RunningVm& vm) : vm(vm) {}

  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> stop(StopContext context) override;
  kj::Promise<void> powerButton(PowerButtonContext context) override;
  kj::Promise<void> counters(CountersContext context) override;
  kj::Promise<void> inspectJails(InspectJailsContext context) override;

 private:
  static constexpr uint32_t MOST_CALLS = 16;

  kj::Promise<void> bounded(kj::Promise<void> call);

  RunningVm& vm;
  uint32_t calls = 0;
};

}  // namespace troupe
