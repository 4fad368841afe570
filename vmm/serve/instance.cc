#include "vmm/serve/instance.h"

#include <kj/debug.h>

#include "vmm/local_vm.h"
#include "vmm/user_error.h"

namespace troupe::realm {

namespace {

// One that never ran ends as `troupe run` does.
VmEnd endOf(const kj::Exception& failure) {
  auto status = toStatus(failure);
  return {exitCodeOf(status), kj::heapString(status.message().data(), status.message().size())};
}

VmEnd stoppedEarly(kj::StringPtr reason) {
  return {ExitCode::STOPPED, kj::heapString(reason)};
}

kj::Exception neverRan(const VmEnd& end) {
  return kj::Exception(
      kj::Exception::Type::FAILED, __FILE__, __LINE__,
      end.message.size() > 0 ? kj::heapString(end.message) : kj::str("the guest never ran"));
}

}  // namespace

Instance::Instance(uint32_t cid, kj::StringPtr label) : number(cid), text(kj::heapString(label)) {}

kj::Maybe<RunningVm&> Instance::vm() {
  return machine.map([](kj::Own<RunningVm>& one) -> RunningVm& { return *one; });
}

kj::Maybe<const VmEnd&> Instance::outcome() const {
  KJ_IF_MAYBE (known, end) {
    return *known;
  }
  return nullptr;
}

void Instance::stop(kj::String reason) {
  KJ_IF_MAYBE (one, machine) {
    (*one)->stop(kj::mv(reason));
  } else if (stopReason == nullptr) {
    stopReason = kj::mv(reason);
  }
}

kj::Promise<void> Instance::live(kj::AsyncIoContext& io, Stage& stage, Prepare prepare) {
  return kj::evalLater([this, &io, &stage, prepare = kj::mv(prepare)]() mutable {
           KJ_IF_MAYBE (reason, stopReason) {
             return kj::Promise<VmEnd>(stoppedEarly(*reason));
           }
           RunningVm& one = *machine.emplace(kj::heap<LocalVm>(io, stage, prepare(number)));
           launching.fulfiller->fulfill();
           watching = one.onRunning()
                          .then([this]() { beginning.fulfiller->fulfill(); })
                          .eagerlyEvaluate(nullptr);
           return one.onEnd();
         })
      .catch_([](kj::Exception&& failure) { return endOf(failure); })
      .then([this](VmEnd&& known) { finish(kj::mv(known)); });
}

void Instance::finish(VmEnd known) {
  watching = kj::READY_NOW;
  machine = nullptr;
  auto& told = end.emplace(kj::mv(known));
  launching.fulfiller->reject(neverRan(told));  // unless they were
  beginning.fulfiller->reject(neverRan(told));  // unless it ran
  ending.fulfiller->fulfill();
}

}  // namespace troupe::realm
