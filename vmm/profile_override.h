#pragma once

#include <kj/async-io.h>

#include "vmm/actor_profiles.h"

namespace troupe {

// Compiles the profiles in `folder` in a jailed process of its own (vmm/policy/compiler.h): they
// are somebody's text, and `troupe` parses none. `program` is troupe-policy, borrowed until the
// promise is done; no other launcher of this thread may exist until then. Fails with a user error
// for whatever is wrong with the profiles.
kj::Promise<ActorProfiles> overrideProfiles(kj::AsyncIoContext& io, int program,
                                            kj::StringPtr folder);

}  // namespace troupe
