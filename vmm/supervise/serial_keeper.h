#pragma once

#include <kj/async-io.h>
#include <kj/function.h>

#include "vmm/actors/inspection.h"
#include "vmm/company/company.h"
#include "vmm/supervise/deaths.h"

namespace troupe {

// Replaces the serial port's actor when it ends, as its profile says (`restart`): another one goes
// on with the same socket to the broker and the same terminal, file or listening socket, which
// `troupe` keeps open. What the guest prints meanwhile waits in that socket and in the 16550, and
// what the dead one had read of it and not delivered is lost.
//
// Exists from when the guest runs until the VM is to end.
class SerialKeeper {
 public:
  // All of it outlives the keeper. `died` is told of each process that another is to follow, and
  // `replaced` of that.
  SerialKeeper(kj::AsyncIoContext& io, Inspection& inspection, Company& company,
               kj::Function<void(Actor&)> died, kj::Function<void(Actor&)> replaced);
  KJ_DISALLOW_COPY(SerialKeeper);

  // Resolves when it has ended and is not replaced.
  kj::Promise<void> onAbandoned() { return abandonment.addBranch(); }

  // Whether the actor there is has ended, or has not come to serve.
  bool isMoving() const { return !serves || company.serial->isEnding(); }

 private:
  kj::Promise<void> watch();
  kj::Promise<void> succeed(int status);
  kj::Promise<void> replace();

  kj::AsyncIoContext& io;
  Inspection& inspection;
  Company& company;
  kj::Function<void(Actor&)> died;
  kj::Function<void(Actor&)> replaced;
  bool serves = true;
  Deaths deaths;
  kj::PromiseFulfillerPair<void> abandoned;
  kj::ForkedPromise<void> abandonment;
  kj::Promise<void> life;
};

}  // namespace troupe
