#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/vector.h>

#include "protos/broker.capnp.h"
#include "vmm/company.h"
#include "vmm/inspection.h"

namespace troupe {

// Replaces the devices of one running VM that end by themselves, as their profiles say (`restart`):
// another process with the same jail and the same files takes the dead one's place, and goes on
// with what that had in flight. Its guest sees a pause.
//
//   death ─► reaped ─► another process launched ─► broker: replaceDevice ─► attested ─┐
//      └──► every request it had in the kernel has ended ─────────────────────────────┴►
//      resumeDevice
//
// Exists from when the guest runs until the VM is to end.
class Supervisor {
 public:
  // What it works with; all of it outlives the supervisor.
  struct Ground {
    kj::AsyncIoContext& io;
    ActorLauncher& launcher;
    Inspection& inspection;
    Company& company;
  };
  // `replaced` is told which device has a new process that serves, `died` of each that has ended
  // and whether another is to take its place.
  Supervisor(Ground ground, Broker::Client broker, kj::Function<void(uint16_t)> replaced,
             kj::Function<void(Actor&, bool)> died);
  ~Supervisor() noexcept(false);
  KJ_DISALLOW_COPY(Supervisor);

  // Resolves when a device has ended and is not replaced; company.abandoned says which, if it is
  // not by its user's wish.
  kj::Promise<void> onAbandoned() { return abandonment.addBranch(); }

 private:
  struct Ward;  // a device

  kj::Promise<void> watch(Ward& ward);
  kj::Promise<void> succeed(Ward& ward, int status);
  kj::Promise<void> replace(Ward& ward, bool ownFault);
  void renewHelper(Ward& ward);
  void watchHelper(Ward& ward);
  kj::Promise<void> attest(Ward& ward);
  kj::Promise<bool> begin(Ward& ward, kj::AutoCloseFd pipe);
  kj::Promise<void> resume(Ward& ward, bool ownFault);
  kj::Promise<void> watchLosses();
  void abandon(Ward& ward, kj::String why);

  Ground ground;
  Broker::Client broker;
  kj::Function<void(uint16_t)> replaced;
  kj::Function<void(Actor&, bool)> died;
  kj::PromiseFulfillerPair<void> abandoned;
  kj::ForkedPromise<void> abandonment;
  kj::Vector<kj::Own<Ward>> wards;
  kj::Promise<void> losses;
};

}  // namespace troupe
