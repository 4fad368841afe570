#pragma once

#include <kj/async-io.h>

#include "sandbox/launcher.h"
#include "vmm/actors/programs.h"
#include "vmm/policy/actor_profiles.h"

namespace troupe {

// What a process has once, for all VMs that play in it: the programs and profiles of their actors,
// and the launcher of its thread. Their jails are all open or all closed, therefore, and one folder
// of profiles is in force for all.
class Stage {
 public:
  struct Choices {
    sandbox::Jail jail = sandbox::Jail::ON;
    kj::Maybe<kj::StringPtr> profileDir = nullptr;
    // What to write down of all actors' system calls, for `troupe policy`.
    kj::Maybe<const sandbox::WatchRequest&> watch = nullptr;
    bool hostsMany = false;  // VMs, so that what is printed has to say of which it is
    // For tests; nothing a user can write reaches these.
    kj::Maybe<kj::StringPtr> programs = nullptr;  // the folder with the executables
    sandbox::LaunchFaults faults = {};
    kj::Duration startDeadline = 60 * kj::SECONDS;  // a big initrd from a slow disk
  };

  // Waits, when there is a folder of profiles, until they are compiled: so not from within the
  // loop. Throws a user error for what cannot be.
  Stage(kj::AsyncIoContext& io, const Choices& choices);
  KJ_DISALLOW_COPY(Stage);

  const kj::Duration startDeadline;
  const sandbox::Jail jail;
  const kj::Maybe<kj::String> profileDir;
  const Programs programs;
  const ActorProfiles profiles;
  sandbox::Launcher launcher;
  const bool hostsMany;
  const bool onlyReports;  // filters do: `troupe policy learn`
  const bool counts;       // the calls that filters let through are counted
};

}  // namespace troupe
