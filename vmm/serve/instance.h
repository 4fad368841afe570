#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/refcount.h>

#include "vmm/stage.h"
#include "vmm/vm_model.h"
#include "vmm/vm_start.h"

namespace troupe::realm {

// One guest of a realm, from the moment it is asked for until nobody asks about it any more.
// Instances are made by Environment alone, and nothing but an instance starts a VM.
class Instance final: public kj::Refcounted {
 public:
  // What to start it from, told its cid. Called from the loop, once; throws a user error for what
  // cannot be.
  using Prepare = kj::Function<VmStart(uint32_t cid)>;

  Instance(uint32_t cid, kj::StringPtr label);
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

  // Ends it at once, also before it runs.
  void stop(kj::String reason);

  // Of its maker: the whole of its life.
  kj::Promise<void> live(kj::AsyncIoContext& io, Stage& stage, Prepare prepare);

 private:
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
};

}  // namespace troupe::realm
