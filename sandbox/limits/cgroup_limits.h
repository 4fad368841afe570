#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <cstdint>

#include "sandbox/limits/cgroup_ground.h"
#include "sandbox/profile.h"
#include "sandbox/setup_message.h"

namespace troupe::sandbox {

// One file of a control group, and what is to stand in it.
struct CgroupSetting {
  Controller controller;
  kj::StringPtr limit;  // as profiles call it: "memory_max"
  kj::String file;      // "memory.max"
  kj::String value;     // what is written, and read back
  const ProfileLayer* layer;
  kj::String unfit;  // why there can be no such limit; empty when there can
};

// What guest RAM of `guestMemory` bytes can cost a group: the pages, and 1/32 of them for the
// tables that point to them (KVM's and the process's take less than half of that).
uint64_t costOfGuestMemory(uint64_t guestMemory);

// The size of those of `fds` that are files kept in memory (tmpfs): what is written to a disk there
// counts as memory of the actor that writes. And what is said of the others (HandedFd::memory).
uint64_t costOfFilesInMemory(const Profile& profile, kj::ArrayPtr<const HandedFd> fds);

// The controllers that the limits of `profile` need.
uint32_t controllersOf(const Profile& profile);

// Turns the limits of `profile` into settings. An actor that maps guest RAM gets its cost on top of
// memory_max: a page of the memfd is charged to whoever touches it first, which for an actor that
// reads a disk can be all of them. So does one that is handed files kept in memory. Its own memory
// is not swapped out, all of that may be. `fds`: also where the files are whose devices `io` means;
// of an fd that is not among them nothing is limited.
kj::Array<CgroupSetting> cgroupSettings(const Profile& profile, uint64_t guestMemory,
                                        kj::ArrayPtr<const HandedFd> fds);

// The value of `kind` in the profile; 0 when it has none.
uint64_t cgroupLimit(const Profile& profile, ProfileCgroupLimit::Kind kind);

}  // namespace troupe::sandbox
