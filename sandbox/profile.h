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
  const char* source;  // the profile's file, from the root of the tree
};

// The number the program itself has at the moment of its execveat: above all that the launcher
// hands over, low enough for any limit, and no fd's of the profile. `Fd` is ProfileFd, or has its
// fields.
template <typename Fd>
uint32_t executableFd(const Fd* fds, size_t fdCount) {
  uint32_t number = 0;
  for (size_t i = 0; i < fdCount; i++) {
    if (fds[i].handed && fds[i].number + fds[i].count > number) {
      number = fds[i].number + fds[i].count;
    }
  }
  for (size_t i = 0; i < fdCount;) {
    bool taken = fds[i].number <= number && number < fds[i].number + fds[i].count;
    if (taken) number = fds[i].number + fds[i].count;
    i = taken ? 0 : i + 1;
  }
  return number;
}

// RLIMIT_NOFILE where a profile sets none: its table, once more what arrives by RPC before it is
// put there, and a little air.
inline uint64_t defaultFileLimit(const Profile& profile) {
  uint64_t end = 0, placed = 0;
  for (size_t i = 0; i < profile.fdCount; i++) {
    const ProfileFd& fd = profile.fds[i];
    if (fd.number + fd.count > end) end = fd.number + fd.count;
    if (!fd.handed && !fd.made) placed += fd.count;
  }
  return end + placed + 8;
}

}  // namespace troupe::sandbox
