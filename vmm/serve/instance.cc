#include "vmm/serve/instance.h"

#include <kj/debug.h>

#include "vmm/files/host_memory_file.h"
#include "vmm/files/open_file.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/user_error.h"

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

// What is a guest's alone, or not to be written meanwhile. Whoever has it may be just leaving.
kj::Promise<void> lockFiles(kj::Timer& timer, const VmStart& start) {
  kj::Vector<kj::Promise<void>> all;
  all.add(lockDisks(timer, start.plan.disks, start.files.disks));
  for (auto i : kj::indices(start.files.hostMemory))
    all.add(lockHostMemory(timer, start.plan.hostMemory[i], start.files.hostMemory[i]));
  return kj::joinPromises(all.releaseAsArray());
}

kj::Exception neverRan(const VmEnd& end) {
  return kj::Exception(
      kj::Exception::Type::FAILED, __FILE__, __LINE__,
      end.message.size() > 0 ? kj::heapString(end.message) : kj::str("the guest never ran"));
}

}  // namespace

Instance::Instance(Maker, uint32_t cid, kj::StringPtr label)
    : number(cid), text(kj::heapString(label)) {}

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

void Instance::requireRoom() const {
  if (callCount < MOST_CALLS) return;
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                    kj::str("too many calls on the guest with cid ", number, " are under way")));
}

kj::Promise<void> Instance::live(kj::AsyncIoContext& io, Stage& stage, Prepare prepare) {
  return kj::evalLater([this, &io, &stage, prepare = kj::mv(prepare)]() mutable {
           KJ_IF_MAYBE (reason, stopReason) {
             return kj::Promise<VmEnd>(stoppedEarly(*reason));
           }
           auto start = kj::heap<VmStart>(prepare(number));
           auto locked = lockFiles(io.provider->getTimer(), *start);
           return locked.then([this, &io, &stage, start = kj::mv(start)]() mutable {
             return play(io, stage, kj::mv(*start));
           });
         })
      .catch_([](kj::Exception&& failure) { return endOf(failure); })
      .then([this](VmEnd&& known) { finish(kj::mv(known)); });
}

kj::Promise<VmEnd> Instance::play(kj::AsyncIoContext& io, Stage& stage, VmStart start) {
  KJ_IF_MAYBE (reason, stopReason) {
    return stoppedEarly(*reason);  // while its disks were waited for
  }
  RunningVm& one =
      *machine.emplace(kj::heap<LocalVm>(LocalVm::Starter(), io, stage, kj::mv(start)));
  launching.fulfiller->fulfill();
  watching =
      one.onRunning().then([this]() { beginning.fulfiller->fulfill(); }).eagerlyEvaluate(nullptr);
  return one.onEnd();
}

void Instance::finish(VmEnd known) {
  watching = kj::READY_NOW;
  calls.cancel(kj::Exception(
      kj::Exception::Type::FAILED, __FILE__, __LINE__,
      UserError(codes::GUEST_ENDED, kj::str("the guest with cid ", number, " has ended meanwhile"))
          .render()));
  machine = nullptr;
  auto& told = end.emplace(kj::mv(known));
  launching.fulfiller->reject(neverRan(told));  // unless they were
  beginning.fulfiller->reject(neverRan(told));  // unless it ran
  ending.fulfiller->fulfill();
}

}  // namespace troupe::realm
