#pragma once

#include <kj/one-of.h>
#include <kj/string.h>
#include <unistd.h>

#include <cstdint>

namespace troupe::sandbox {

// The controllers of control groups (version 2) that limits are made of; a set of them has bit n
// for the n-th.
enum class Controller : uint32_t { MEMORY, PIDS, CPU, IO };
constexpr Controller CONTROLLERS[] = {Controller::MEMORY, Controller::PIDS, Controller::CPU,
                                      Controller::IO};
const char* nameOf(Controller controller);
constexpr uint32_t setOf(Controller controller) {
  return 1u << uint32_t(controller);
}

// "memory, pids"
kj::String namesOf(uint32_t controllers);

// What the names of groups begin with to which a process moved that divides the one above.
constexpr kj::StringPtr LEAF_PREFIX = "supervisor-"_kj;

// The group below which this process may make groups of its own.
struct CgroupGround {
  kj::String mount;      // "/sys/fs/cgroup"
  kj::String mountRoot;  // the group that is mounted there: "" for the root
  kj::String group;      // below the mount: "/user.slice/…", "" for the mount itself
  uint32_t controllers;  // which of the wanted ones groups in it can have

  // This process is the only one in it. It must move to a group below before those can have
  // controllers: processes live in leaves only.
  bool lived;

  kj::String folder() const { return kj::str(mount, group); }
};

// Why there is nothing, what shows it and what mends it.
struct CgroupShortage {
  kj::String reason;
  kj::String see;
  kj::String mend;
};

// The kernel's files about this process. Tests have their own.
struct CgroupView {
  kj::StringPtr mountInfo = "/proc/self/mountinfo";
  kj::StringPtr ownGroups = "/proc/self/cgroup";
  bool asRoot = geteuid() == 0;
};

// Looks for ground where groups can have as many as possible of the controllers `wanted`, from this
// process's own group upwards. For root that is a group which was delegated to it, or the root of
// the hierarchy; for an ordinary user one that user may write to, which a login session's own group
// is not. Changes nothing.
kj::OneOf<CgroupGround, CgroupShortage> findCgroupGround(uint32_t wanted,
                                                         const CgroupView& view = {});

// What there is to be said when only some of `wanted` can be had on `ground`.
CgroupShortage shortageOf(const CgroupGround& ground, uint32_t wanted);

}  // namespace troupe::sandbox
