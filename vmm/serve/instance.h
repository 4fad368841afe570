#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/refcount.h>

#include "vmm/company/stage.h"
#include "vmm/company/vm_start.h"
#include "vmm/control/vm_model.h"

namespace troupe::realm {

// One guest of a realm, from the moment it is asked for until nobody asks about it any more.
// Instances are made by Environment alone, and nothing but an instance starts a VM.
class Instance final: public kj::Refcounted {
 public:
  // What to start it from, told its cid. Called from the loop, once; throws a user error for what
  // cannot be. Its disks may be not locked yet, nor its host's memory.
  using Prepare = kj::Function<VmStart(uint32_t cid)>;

  class Maker {
    Maker() {}
    friend class Environment;
  };

  Instance(Maker, uint32_t cid, kj::StringPtr label);
  KJ_DISALLOW_COPY(Instance);

  uint32_t cid() const { return number; }
  kj::StringPtr label() const { return text; }

  // The VM, from when its processes are launched until they are gone.
  kj::Maybe<RunningVm&> vm();

  // Resolves when its processes are launched; fails when they never will be, as onRunning().
  kj::Promise<void> onLaunched() { return launched.addBranch(); }

  // Resolves when the guest runs. Fails when it never will, with the user error that says why. Any
  // number of callers.
  kj::Promise<void> onRunning() { return running.addBranch(); }

  // Resolves when it has ended and nothing is left of it; outcome() is known then.
  kj::Promise<void> onEnd() { return ended.addBranch(); }

  kj::Maybe<const VmEnd&> outcome() const;

  uint32_t waitingForStatistics = 0;  // callers of BalloonController.getMemStats

  // Calls on its VM that somebody else has to answer: so many are under way, of all clients,
  // whether these wait for them or not; and all end with the VM. requireRoom() comes before the
  // call.
  static constexpr uint32_t MOST_CALLS = 16;
  void requireRoom() const;
  template <typename T>
  kj::Promise<T> bounded(kj::Promise<T> call) {
    ++callCount;
    return calls.wrap(kj::mv(call)).attach(kj::defer([self = kj::addRef(*this)]() mutable {
      --self->callCount;
    }));
  }

  // Ends it at once, also before it runs.
  void stop(kj::String reason);

  // Of its maker: the whole of its life.
  kj::Promise<void> live(kj::AsyncIoContext& io, Stage& stage, Prepare prepare);

 private:
  kj::Promise<VmEnd> play(kj::AsyncIoContext& io, Stage& stage, VmStart start);
  void finish(VmEnd end);

  const uint32_t number;
  const kj::String text;
  kj::Maybe<kj::Own<RunningVm>> machine;
  kj::Maybe<kj::String> stopReason;
  kj::Maybe<VmEnd> end;
  kj::PromiseFulfillerPair<void> launching = kj::newPromiseAndFulfiller<void>();
  kj::PromiseFulfillerPair<void> beginning = kj::newPromiseAndFulfiller<void>();
  kj::PromiseFulfillerPair<void> ending = kj::newPromiseAndFulfiller<void>();
  kj::ForkedPromise<void> launched = launching.promise.fork();
  kj::ForkedPromise<void> running = beginning.promise.fork();
  kj::ForkedPromise<void> ended = ending.promise.fork();
  kj::Promise<void> watching = kj::READY_NOW;  // for its beginning
  uint32_t callCount = 0;
  kj::Canceler calls;
};

}  // namespace troupe::realm
