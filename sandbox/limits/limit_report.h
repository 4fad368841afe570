#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "sandbox/limits/cgroup.h"
#include "sandbox/limits/last_use.h"
#include "sandbox/profile.h"

namespace troupe::sandbox {

// A limit that an actor had met when it ended.
struct MetLimit {
  bool deadly;        // the actor ended because of it
  kj::String what;    // "it used more than its memory_max of …"
  kj::String remedy;  // what to write into the profile: "cgroup { memory_max { value: … } }"
};

// Which limits had been met by an actor that ended with `waitStatus`. Made of the profile's names
// and of numbers the kernel counts, so that an actor that was taken over can put no words into it;
// of one that is not `deadly` it is not known whether it had to do with the end.
//
// What is not counted anywhere is not seen: a mapping beyond AS that was tried in vain, a file
// beyond FSIZE, what landlock refused.
kj::Array<MetLimit> limitsMet(const Profile& profile, int waitStatus, kj::Maybe<LastUse> use,
                              kj::Maybe<CgroupAccount> account);

}  // namespace troupe::sandbox
