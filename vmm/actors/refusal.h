#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "vmm/actors/actor.h"
#include "vmm/words/user_error.h"

namespace troupe {

// Why the jail of an actor that has ended killed it: a system call its filter does not allow, or a
// limit. None when that is not what it died of, or when the host let nobody look on. `consequence`:
// what it meant, as in "the VM \"web\" lost blk0".
kj::Maybe<UserError> explainRefusal(Actor& actor, kj::StringPtr consequence);

// Adds to the error about an actor that has ended its last `words`, and what its jail may have had
// to do with it: limits it had met, and layers whose refusals look like what it says.
void addLastWords(UserError& error, Actor& actor, const kj::Vector<kj::String>& words);

}  // namespace troupe
