#pragma once

#include <kj/async-io.h>
#include <kj/vector.h>

#include "sandbox/attest.h"
#include "sandbox/launcher.h"
#include "vmm/actor.h"

namespace troupe {

// Looks at the jails of one VM's actors from outside. None may share a namespace with one that was
// looked at before it, but for one whose place it takes: an ended actor's namespaces are gone, and
// the kernel gives their numbers away again. Finds nothing where jails are off.
class Inspection {
 public:
  // `ram`: the file of the guest's memory; borrowed for this call.
  Inspection(kj::Timer& timer, sandbox::Jail jail, int ram);
  KJ_DISALLOW_COPY(Inspection);

  // Throws unless the actor, which is ready, is jailed as its profile says.
  void attest(Actor& actor);

  // The same for an actor that has nobody to answer "ready" to: looks until it is, for a while.
  kj::Promise<void> attestWhenReady(Actor& actor);

 private:
  kj::Promise<void> attestBefore(Actor& actor, kj::TimePoint deadline);
  sandbox::Attestation lookAt(Actor& actor);
  void forgetPredecessor(Actor& actor);
  void accept(Actor& actor, const sandbox::Attestation& attestation);

  kj::Timer& timer;
  sandbox::Jail jail;
  sandbox::SharedFile ram;                  // with the ranges of who is looked at
  kj::Array<sandbox::FileRange> ramRanges;  // which these are
  uint64_t ramBytes;
  kj::Maybe<sandbox::HostView> host;             // once the first actor is looked at
  kj::Vector<sandbox::NamespaceIds> namespaces;  // of all attested so far
  kj::Vector<kj::String> names;                  // whose these are
};

}  // namespace troupe
