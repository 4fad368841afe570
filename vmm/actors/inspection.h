#pragma once

#include <kj/async-io.h>
#include <kj/vector.h>

#include "broker/ram_layout.h"
#include "sandbox/attest.h"
#include "sandbox/launcher.h"
#include "vmm/actors/actor.h"
#include "vmm/actors/siblings.h"

namespace troupe {

// Looks at the jails of one VM's actors from outside. None may share a namespace with one that was
// looked at before it and lives. Finds nothing where jails are off.
//
// Every process passes through attest() before it gets to see anything of the guest: those a VM
// starts with, and any that takes the place of one that has ended.
class Inspection {
 public:
  // `ram`: the file of the guest's memory; borrowed for this call. `regions`: where it lies.
  Inspection(kj::Timer& timer, sandbox::Jail jail, int ram, kj::Array<broker::RamRegion> regions);

  // Of actors that have nothing to do with any guest.
  Inspection(kj::Timer& timer, sandbox::Jail jail);
  KJ_DISALLOW_COPY(Inspection);

  // Fails unless the actor, which is ready and outlives the promise, is jailed as its profile says.
  // Where this process may read them, the instructions of its filters are compared as well.
  kj::Promise<void> attest(Actor& actor);

  // The same for an actor that has nobody to answer "ready" to: looks until it is, for a while.
  kj::Promise<void> attestWhenReady(Actor& actor);

  // The same for a helper, which closes its own jail in its own time.
  kj::Promise<void> attestHelper(Actor& helper);

  // The actor is gone, and the kernel may give what was its own to another.
  void forget(Actor& actor);

  // How an actor that is serving is jailed at this moment. Its filters by mode and count: none can
  // have changed since they were compared, for the kernel only ever adds one.
  sandbox::Attestation look(Actor& actor, sandbox::Stage stage);

  // The filter that is in force in its main thread: "start", "ready", "run" or "none".
  kj::StringPtr stageOf(Actor& actor);

  // How filters are attested: "by their instructions" or "by mode and count (why)".
  kj::String filterMethod() const;
  bool comparesInstructions() const { return whyOnlyCounts.size() == 0; }

 private:
  kj::Promise<void> attestBefore(Actor& actor, kj::TimePoint deadline);
  kj::Promise<sandbox::FilterReading> readFilters(Actor& actor);
  sandbox::AttestOptions optionsFor(Actor& actor, kj::ArrayPtr<const sandbox::NamespaceIds> others);
  kj::Array<sandbox::NamespaceIds> namespacesOfOthers(Actor& actor) const;
  void accept(Actor& actor, const sandbox::FilterReading& filters);

  kj::Timer& timer;
  sandbox::Jail jail;
  sandbox::SharedFile ram;                  // with the ranges of who is looked at
  kj::Array<sandbox::FileRange> ramRanges;  // which these are
  kj::Array<broker::RamRegion> regions;
  kj::Maybe<sandbox::HostView> host;  // once the first actor is looked at
  kj::String whyOnlyCounts;           // why instructions are not compared, once that is known
  bool asked = false;
  Siblings siblings;  // all attested so far
};

}  // namespace troupe
