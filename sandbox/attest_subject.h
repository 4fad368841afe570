#pragma once

#include <kj/string.h>
#include <kj/vector.h>

#include "sandbox/attest.h"

namespace troupe::sandbox {

// The process that attest() looks at, and what was found so far. Each layer of the jail has a part
// of its own, attest_<part>.cc, which notes what it sees and in what that differs from the profile.
class Subject {
 public:
  Subject(const Profile& profile, pid_t pid, int folder, const AttestOptions& options,
          bool kernelSealsExecution)
      : profile(profile),
        pid(pid),
        folder(folder),
        options(options),
        executableSeals(profile.layers.executableSeals.wanted() && kernelSealsExecution) {}
  KJ_DISALLOW_COPY(Subject);

  const Profile& profile;
  const pid_t pid;
  const int folder;  // of /proc/PID
  const AttestOptions& options;
  const bool executableSeals;  // whether a memfd that can be executed is a difference

  // Something is as the profile does not have it: a sentence about "it". The rows of this layer no
  // longer agree.
  template <typename... Parts>
  void differ(kj::StringPtr layer, Parts&&... parts) {
    differences.add(kj::str(kj::fwd<Parts>(parts)...));
    bool known = false;
    for (Observation& one : observations) {
      if (one.layer != layer) continue;
      one.agrees = false;
      known = true;
    }
    if (!known && options.observe)
      observations.add(Observation{kj::heapString(layer), kj::str(differences.back()), false});
  }

  // What there is, for `troupe inspect`. To be said before it is compared.
  template <typename... Parts>
  void seen(kj::StringPtr layer, Parts&&... parts) {
    if (!options.observe) return;
    observations.add(Observation{kj::heapString(layer), kj::str(kj::fwd<Parts>(parts)...), true});
  }

  kj::Vector<kj::String> differences;
  kj::Vector<Observation> observations;
  kj::Vector<HostMapping> hostMemory;
};

// `layer` and `who` are the row and the name of one of its threads.
void attestFilters(Subject& subject, kj::StringPtr layer, kj::StringPtr who, pid_t thread);

void attestThreads(Subject& subject, int inheritedFilters);
void attestNamespaces(Subject& subject, const NamespaceIds& host, const NamespaceIds& own);
void attestRoot(Subject& subject);
void attestFds(Subject& subject);
void attestLimits(Subject& subject);
void attestCgroup(Subject& subject);
void attestMemory(Subject& subject);

// What a process's folder in /proc says of its namespaces; 0 where it cannot be read.
NamespaceIds namespacesAt(int folder);

}  // namespace troupe::sandbox
