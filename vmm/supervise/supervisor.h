#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/vector.h>

#include "protos/broker.capnp.h"
#include "vmm/actors/inspection.h"
#include "vmm/company/company.h"
#include "vmm/supervise/after_death.h"

namespace troupe {

// Replaces the devices of one running VM that end by themselves, or hang, as their profiles say
// (`restart`): another process with the same jail and the same files takes the dead one's place,
// and goes on with what that had in flight. Its guest sees a pause.
//
//   death ─► reaped ─► another process launched ─► broker: replaceDevice ─► attested ─┐
//      └──► every request it had in the kernel has ended ─────────────────────────────┴►
//      resumeDevice
//
// With a spare, all of the first line was done before. By its user's wish a process is prepared in
// the same way beside the one that serves, and that one lets go and ends. Either has looked at
// nothing that the process before it changes: what an image's process had not saved, what is read
// from a terminal, a queue of a tap become its own once that one has ended (`resumeDevice`),
// however long it takes to make something of them.
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
    kj::StringPtr vm;
  };
  // Who wants to know what happens, and of what.
  using Died = kj::Function<void(Actor&, AfterDeath, kj::StringPtr cause)>;
  using PutAside = kj::Function<void(kj::StringPtr device, kj::StringPtr detail)>;
  // `replaced` is told which device has a new process that serves, `died` of each that has ended,
  // `putAside` of requests that processes died of. `isJudging`: whether devices that do not move
  // are hung; those of a paused VM may be looked at by whoever paused it.
  Supervisor(Ground ground, Broker::Client broker, kj::Function<void(uint16_t)> replaced, Died died,
             PutAside putAside, kj::Function<bool()> isJudging);
  ~Supervisor() noexcept(false);
  KJ_DISALLOW_COPY(Supervisor);

  // Resolves when a device has ended and is not replaced; company.abandoned says which, if it is
  // not by its user's wish.
  kj::Promise<void> onAbandoned() { return abandonment.addBranch(); }

  // Another process, made as `change` says, takes the place of the one that serves, which is no
  // death. Throws a user error, and then all is as it was.
  kj::Promise<void> exchange(uint16_t device, Succession::Change change);

  // Whether `actor`, that of a device or of its helper, is just now not what it will be: it has
  // ended, lets go, or has not come to serve. A spare that is not ready does not count.
  bool isMoving(const Actor& actor) const;

 private:
  struct Ward;  // a device

  kj::Promise<void> watch(Ward& ward);
  kj::Promise<void> deal(Ward& ward, int status);
  bool mayBeginEarly(Ward& ward);
  kj::Promise<void> beginEarly(Ward& ward);
  kj::Promise<bool> brokerLives();
  kj::Promise<void> succeed(Ward& ward, int status);
  void tellOfDeath(Ward& ward, Actor& actor, int status, AfterDeath next);
  kj::Promise<void> leaveDown(Ward& ward);
  kj::Promise<void> replace(Ward& ward);
  kj::Promise<void> takePlace(Ward& ward);
  void adoptSpare(Ward& ward);
  kj::AutoCloseFd makeHelperEnd(Ward& ward);
  void renewHelper(Ward& ward, kj::AutoCloseFd end);
  void watchHelper(Ward& ward);
  kj::Promise<void> attestHelper(Ward& ward);
  void install(Ward& ward, Succession::Member member);
  kj::Promise<kj::Maybe<uint32_t>> prepare(Ward& ward, Actor& actor, kj::AutoCloseFd pipe,
                                           bool isBeside);
  kj::Promise<void> resume(Ward& ward);
  void serves(Ward& ward);

  void wantSpare(Ward& ward);
  kj::Promise<void> tidyUp(Ward& ward);
  kj::Promise<void> keepSpare(Ward& ward);
  void dropSpare(Ward& ward);
  void startNext(Ward& ward, Succession::Change change);
  kj::Promise<void> handOver(Ward& ward);
  void endExchange(Ward& ward, kj::StringPtr why);

  kj::Promise<void> watchLosses();
  void noteLoss(uint16_t device, uint32_t process, kj::StringPtr why);
  void noteLossOfServing(Ward& ward, kj::StringPtr why);
  void giveUpSpare(Ward& ward);
  kj::Promise<void> watchBeats();
  void tellOfQuarantine(Ward& ward);
  kj::Duration judge(Ward& ward, kj::TimePoint now);
  void abandon(Ward& ward, kj::String why);
  kj::Timer& timer() { return ground.io.provider->getTimer(); }

  Ground ground;
  Broker::Client broker;
  kj::Function<void(uint16_t)> replaced;
  Died died;
  PutAside putAside;
  kj::Function<bool()> isJudging;
  kj::PromiseFulfillerPair<void> abandoned;
  kj::ForkedPromise<void> abandonment;
  kj::Vector<kj::Own<Ward>> wards;
  kj::Promise<void> losses;
  kj::Promise<void> beats;
};

}  // namespace troupe
