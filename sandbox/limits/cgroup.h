#pragma once

#include <kj/array.h>
#include <kj/io.h>
#include <kj/memory.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <sys/types.h>

#include <cstdint>

#include "sandbox/limits/cgroup_ground.h"
#include "sandbox/limits/cgroup_limits.h"
#include "sandbox/limits/memory_of_actors.h"

namespace troupe::sandbox {

// How often an actor's limits were met, as the kernel counts.
struct CgroupAccount {
  uint64_t oomKills;  // processes in it that the kernel killed for want of memory, whoever's limit
  uint64_t ownLimit;  // times its own memory limit left it nothing to free
  uint64_t vmLimit;   // times that of the VM's group did
  uint64_t pidsRefused;  // processes and threads that it was not allowed
  uint64_t guestMemory;  // bytes of guest RAM that count beside its own memory
  uint64_t vmMemory;     // the VM's limit in bytes; 0: none
};

class VmCgroups;

// The group of one actor, with its limits in force from before the actor's first instruction.
// Removed with the object, which outlives the actor's process.
class ActorCgroup {
 public:
  ActorCgroup(VmCgroups& vm, kj::StringPtr actor, kj::String folder, kj::String shown,
              kj::Array<CgroupSetting> settings);
  ~ActorCgroup() noexcept(false);
  KJ_DISALLOW_COPY(ActorCgroup);

  int fd() const { return handle; }  // of its folder, for clone3
  kj::StringPtr path() const { return folder; }
  kj::ArrayPtr<const CgroupSetting> inForce() const { return settings; }

  CgroupAccount account() const;

  // Whether its processes are frozen (cgroup.freeze), and whether that was asked of this group, and
  // not of one above it alone.
  bool isFrozen() const;
  bool isToFreeze() const;

  // One sentence for each way in which the process `pid` or the group's limits are not as they
  // were made, as the kernel shows them now.
  kj::Array<kj::String> differences(pid_t pid) const;

 private:
  VmCgroups& whole;
  const kj::String actor;
  kj::String folder;
  kj::String shown;  // as /proc/PID/cgroup has it
  kj::Array<CgroupSetting> settings;
  kj::AutoCloseFd handle;
};

// The control groups of one VM. Below the ground that this process has (cgroup_ground.h):
//
//     troupe/               no process lives here; goes with the last VM
//       vm-NAME-PID/        locked for as long as the VM lives; what all its actors may have
//       together
//         broker/ blk0/ …   one process each, and its limits
//
// What VMs that were killed left behind is known by its lock, and removed by the next VM there.
class VmCgroups {
 public:
  // `controllers`: those that the limits of any of the VM's actors need; with none of them nobody
  // gets a group. Where there is no ground there will be no groups either; nothing is thrown.
  VmCgroups(kj::StringPtr vm, uint32_t controllers, uint64_t guestMemory,
            const CgroupView& view = {});
  ~VmCgroups() noexcept(false);
  KJ_DISALLOW_COPY(VmCgroups);

  // The group for an actor that is about to be started; none when its profile has no limits for it
  // or there can be none. Throws TRP-jail-040 when a limit is missing that the profile requires.
  kj::Maybe<kj::Own<ActorCgroup>> add(kj::StringPtr actor, const Profile& profile,
                                      kj::ArrayPtr<const HandedFd> fds);

  // What is missing, in one sentence; empty when every limit that was asked for is in force.
  kj::String missing() const;

  kj::StringPtr path() const { return folder; }

 private:
  friend class ActorCgroup;
  struct Absent {
    kj::String limit;
    kj::String reason;
  };

  bool make(kj::StringPtr name);
  bool moveToLeaf();
  void moveBack();
  kj::String makeActorFolder(kj::StringPtr actor);
  kj::StringPtr putInForce(kj::StringPtr actorFolder, const CgroupSetting& setting);
  void miss(kj::StringPtr actor, const CgroupSetting& setting, kj::StringPtr reason);
  void grow(kj::StringPtr actor, uint64_t bytes, bool limited);

  uint64_t guestBytes;
  bool asked;
  kj::Maybe<CgroupGround> ground;
  CgroupShortage shortage;  // where there is no ground, or not all that was wanted
  uint32_t controllers = 0;
  kj::String base;    // …/troupe
  kj::String folder;  // …/troupe/vm-NAME-PID; empty where there is none
  kj::String leaf;    // where this process moved; empty when it did not
  kj::AutoCloseFd lock;
  kj::String scratch;
  kj::Vector<Absent> absent;
  MemoryOfActors actors;
  uint64_t vmMemory = 0;
};

// Removes the groups of VMs that were killed, by their locks, where VmCgroups makes its own; which
// these were.
kj::Vector<kj::String> removeDeadGroups(const CgroupView& view = {});

}  // namespace troupe::sandbox
