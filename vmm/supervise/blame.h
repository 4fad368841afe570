#pragma once

#include <kj/common.h>

#include "vmm/company/company.h"
#include "vmm/words/user_error.h"

namespace troupe {

// How strongly a wait status suggests that this actor is where the trouble began: the others end
// quietly (0) when their pipes close.
int blame(int status);

// Of those that have ended, the one with whom it most likely began.
kj::Maybe<Actor&> firstToBlame(Company& company);

// Whether the user left by the detach key.
bool userDetached(Company& company);

// What is to be said of an actor that ended before the guest ran. If its last words are an error
// with a code, that is the reason.
UserError diedAtStart(Actor& actor, int status);

}  // namespace troupe
