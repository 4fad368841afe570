#pragma once

#include <kj/memory.h>
#include <kj/vector.h>

#include "protos/compiled_profile.capnp.h"
#include "sandbox/loaded_profile.h"
#include "vmm/policy/profile_folder.h"

namespace troupe {

// Those built in of all actors that play in a VM.
kj::ArrayPtr<const sandbox::Profile* const> playerProfiles();

// The profiles of the actors of one VM: those built in, but for the overridden ones.
class ActorProfiles {
 public:
  ActorProfiles() = default;

  // What the compiler answered. Throws TRP-jail-031 when that is not sound, and a user error with
  // the first mistake when the profiles have any. `folder`: as the user named it.
  // `texts`: what it was asked to compile.
  ActorProfiles(kj::StringPtr folder, CompileResult::Reader result,
                kj::Vector<ProfileText> texts = {});

  // The profile in force where `builtIn` is the one built in. Lives as long as this object.
  const sandbox::Profile& of(const sandbox::Profile& builtIn) const;

  // What they were compiled from; none of those built in.
  kj::ArrayPtr<const ProfileText> texts() const { return sources; }

 private:
  struct Overridden {
    kj::String path;
    kj::Own<sandbox::LoadedProfile> loaded;
  };
  kj::Vector<Overridden> overridden;
  kj::Vector<ProfileText> sources;
};

// The profile built in of the actor with this name in its profile.
kj::Maybe<const sandbox::Profile&> builtInOf(kj::StringPtr actor);

}  // namespace troupe
