#pragma once

#include <kj/async-io.h>

#include "sandbox/launcher.h"
#include "vmm/policy/actor_profiles.h"

namespace troupe {

// Compiles the profiles in `folder` in a jailed process of its own (vmm/policy/compiler.h): they
// are somebody's text, and `troupe` parses none. `program` is troupe-policy, borrowed until the
// promise is done; no other launcher of this thread may exist until then. Fails with a user error
// for whatever is wrong with the profiles.
kj::Promise<ActorProfiles> overrideProfiles(kj::AsyncIoContext& io, int program,
                                            kj::StringPtr folder);

// The same for one profile of a VM that runs, by its launcher, which is the only one of its thread.
// `path`: where `text` was read from. `builtIn`: which profile it is to replace. `inForce`: those
// it may allow no more than; none: it may. Fails with a user error that says what it does.
kj::Promise<kj::Own<ActorProfiles>> compileProfile(kj::AsyncIoContext& io,
                                                   sandbox::Launcher& launcher, int program,
                                                   kj::StringPtr path,
                                                   kj::ArrayPtr<const kj::byte> text,
                                                   const sandbox::Profile& builtIn,
                                                   kj::Maybe<const ActorProfiles&> inForce);

}  // namespace troupe
