#pragma once

#include <linux/filter.h>

#include <cstddef>
#include <cstdint>

namespace troupe::sandbox {

// A profile as //sandbox:profile_compiler emits it from <actor>.profile: plain constants, no
// constructor runs and nothing is parsed when an actor is started. Declared by `<actor>_profile.h`
// next to the profile (see profile.bzl).

struct ProfileFd {
  const char* name;
  uint32_t number;
  uint32_t count;
  const char* kind;  // what attestation expects to find there: "socket", "file", "eventfd", …
  bool handed;       // by the launcher; otherwise the actor puts it there itself
  bool optional;     // may be missing, or (a range) partly missing from its end
  bool closed;       // not open any more once the actor is ready
  bool made;         // by the actor, at the lowest number that was free; never placed
};

struct ProfileFilter {
  // "start", "ready", "run", "thread:NAME". There is no "run" where it would equal "ready".
  const char* stage;
  const sock_filter* program;
  uint16_t length;
};

struct ProfileLimit {
  int resource;  // RLIMIT_…
  uint64_t value;
};

struct Profile {
  const char* actor;
  const ProfileFd* fds;
  size_t fdCount;
  const ProfileFilter* filters;
  size_t filterCount;
  const ProfileLimit* limits;
  size_t limitCount;
};

// The number the program itself has at the moment of its execveat: the first beyond the table.
inline uint32_t executableFd(const Profile& profile) {
  uint32_t end = 0;
  for (size_t i = 0; i < profile.fdCount; i++) {
    uint32_t last = profile.fds[i].number + profile.fds[i].count;
    if (last > end) end = last;
  }
  return end;
}

// RLIMIT_NOFILE where a profile sets none: its table, once more what arrives by RPC before it is
// put there, and a little air.
inline uint64_t defaultFileLimit(const Profile& profile) {
  uint64_t limit = executableFd(profile) + 8;
  for (size_t i = 0; i < profile.fdCount; i++) {
    if (!profile.fds[i].handed && !profile.fds[i].made) limit += profile.fds[i].count;
  }
  return limit;
}

}  // namespace troupe::sandbox
