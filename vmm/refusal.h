#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "vmm/actor.h"
#include "vmm/user_error.h"

namespace troupe {

// Why the jail of an actor that has ended killed it; none when that is not what it died of, or when
// the host let nobody look on. `consequence`: what it meant, as in "the VM \"web\" lost blk0".
kj::Maybe<UserError> explainRefusal(Actor& actor, kj::StringPtr consequence);

}  // namespace troupe
