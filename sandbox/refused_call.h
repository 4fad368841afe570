#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "sandbox/profile.h"

namespace troupe::sandbox {

// A thread's registers at a system call it has just made, as the kernel shows them.
struct CallRegisters {
  uint32_t architecture;  // AUDIT_ARCH_…
  uint64_t number;
  uint64_t instructionPointer;
  uint64_t arguments[6];
};

// A system call that killed an actor, because none of its profile's rules allows it, in words. All
// of them are made of the profile's names and of numbers: an actor that was taken over can choose
// which call it dies of, and nothing else.
struct RefusedCall {
  kj::String stage;  // "run", "thread:queue"
  kj::String call;   // "pread64(rpc (3), 0x7ffd0c3a, 1, 0)"
  // What would allow it: "add to devices/blk/blk.profile, run: rule { … }", or what else to do.
  // Empty where nothing can be done.
  kj::String remedy;
};

// `filterCount`: how many filters the thread had. None when `profile` allows the call: then it is
// not what the thread died of.
kj::Maybe<RefusedCall> explainCall(const Profile& profile, const CallRegisters& registers,
                                   bool isMainThread, uint32_t filterCount);

}  // namespace troupe::sandbox
