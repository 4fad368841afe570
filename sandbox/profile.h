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
  bool optional;
};

struct ProfileFilter {
  const char* stage;  // "start", "ready", "run", "thread:NAME"
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

}  // namespace troupe::sandbox
