#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>
#include <sys/types.h>

#include <cstdint>

#include "sandbox/profile.h"

namespace troupe::sandbox {

// One fd of an actor, as the kernel shows it in /proc and as its profile names its number.
struct SeenFd {
  uint32_t number;
  const ProfileFd* entry;  // of the profile; null where it has none of this number and kind
  kj::String link;         // the kernel's word: "socket:[4711]", "/var/vm/root.img"
  // Tells what is behind the fd from everything else: the same text for all fds, of any process,
  // that lead to the same open socket, pipe, eventfd or file. Empty where the kernel tells nobody.
  kj::String object;

  uint32_t index() const { return entry == nullptr ? 0 : number - entry->number; }
  bool isSocket() const;
  bool isPipe() const;
  bool isEventFd() const;
  bool isFile() const;  // or a block device, a memfd excluded
};

// All fds of `pid` in ascending order; none once it is gone. One that comes or goes meanwhile is
// shown or not.
kj::Array<SeenFd> viewFds(const Profile& profile, pid_t pid);

// The object behind one of this process's own fds.
kj::String objectOf(int fd);

// The filter that is in force in the main thread of `pid`: "start", "ready" or "run" (also where one
// filter is for both of the latter), "none" without any beyond the `inherited` ones.
kj::StringPtr stageOf(const Profile& profile, pid_t pid, int inherited);

}  // namespace troupe::sandbox
