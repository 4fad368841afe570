#pragma once

#include <linux/filter.h>
#include <sys/resource.h>

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

constexpr size_t NAMESPACE_COUNT = 7;

// user, pid, net, mount, ipc, uts, cgroup: where each stands in every list of them.
enum class NamespaceKind : uint8_t { USER, PID, NET, MOUNT, IPC, UTS, CGROUP };

// What landlock can deny.
enum class LandlockAccess : uint8_t {
  FILES,
  TRUNCATE,
  TCP,
  DEVICE_IOCTLS,
  ABSTRACT_SOCKETS,
  SIGNALS
};
constexpr size_t LANDLOCK_ACCESS_COUNT = 6;

// A kernel's version as a number that grows with it.
constexpr uint32_t kernelVersion(uint32_t major, uint32_t minor) {
  return major << 16 | minor;
}

// Whether a jail has a layer, and whether it may lack it.
struct ProfileLayer {
  enum Need : uint8_t {
    OFF,             // not asked for
    REQUIRED,        // the actor does not start without
    REQUIRED_SINCE,  // the same, from the kernel `since` on; may be missing before
    OPTIONAL,        // may be missing
  };
  Need need;
  uint32_t since;  // kernelVersion() for REQUIRED_SINCE

  bool wanted() const { return need != OFF; }
  bool mayBeMissing(uint32_t kernel) const {
    return need == OPTIONAL || (need == REQUIRED_SINCE && kernel < since);
  }
};

// Addresses as the guest uses them; multiples of 4096.
struct ProfileMemoryRange {
  uint64_t address;
  uint64_t size;
};

struct ProfileMemory {
  enum Access : uint8_t { NONE, READ_ONLY, RANGES, ALL };
  Access access;
  const char* fd;                    // the name of the fd that is guest RAM; null with NONE
  const ProfileMemoryRange* ranges;  // with RANGES: at least one, ascending, without overlap
  size_t rangeCount;
};

struct ProfileCgroupLimit {
  enum Kind : uint8_t {
    MEMORY_MAX,  // bytes
    PIDS_MAX,    // processes and threads
    CPU_MAX,     // percent of one CPU
  };
  Kind kind;
  uint64_t value;
  ProfileLayer layer;  // never OFF
};

// Of the device behind an fd; 0: no maximum.
struct ProfileIoLimit {
  const char* fd;
  uint64_t readBytesPerSecond;
  uint64_t writeBytesPerSecond;
  uint64_t readsPerSecond;
  uint64_t writesPerSecond;
  ProfileLayer layer;  // never OFF
};

// What the root of a helper holds; every other actor's is empty.
struct ProfileRootEntry {
  enum Kind : uint8_t { FILE, FOLDER, LINK };
  Kind kind;
  const char* path;    // absolute
  const char* target;  // of a LINK; else null
  bool optional;       // of a FILE: the host may lack it
};

// A program that is not ours, closes a jail of its own around itself, and takes neither setup nor
// stages (protos/profile.proto, Helper).
struct ProfileHelper {
  bool is;
  const ProfileRootEntry* root;
  size_t rootCount;
};

// Whether an actor that ends by itself is replaced: then as often as it takes, or, where `restarts`
// is not 0, until that many were made within `seconds`.
struct ProfileRestart {
  bool always;
  uint32_t restarts;
  uint32_t seconds;
  uint32_t spares;  // processes that wait for its death: 0 or 1
};

// The layers of a jail besides fds, filters and limits. The root is empty, but for a helper's.
struct ProfileLayers {
  ProfileLayer namespaces[NAMESPACE_COUNT];      // by NamespaceKind; user and mount are REQUIRED
  ProfileLayer landlock[LANDLOCK_ACCESS_COUNT];  // by LandlockAccess
  uint64_t capabilities;                         // bit n: capability n is kept
  ProfileLayer mdwe;
  ProfileLayer executableSeals;
  uint32_t minimumKernel;  // kernelVersion()
  ProfileMemory memory;
  const uint8_t* ioUringOpcodes;  // IORING_OP_…, ascending
  size_t ioUringOpcodeCount;
  uint8_t ioUringSqeFlags;  // IOSQE_…: what every operation has, and no others
  const ProfileCgroupLimit* cgroupLimits;
  size_t cgroupLimitCount;
  const ProfileIoLimit* ioLimits;
  size_t ioLimitCount;
  ProfileRestart restart;
  ProfileHelper helper;
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
  ProfileLayers layers;
};

// The functions below take ProfileFd and ProfileLimit or what has their fields.

// RLIMIT_NOFILE of an actor. Where its profile sets none: its table, once more what arrives by RPC
// before it is put there, and a little air.
template <typename Fd, typename Limit>
uint64_t fileLimit(const Fd* fds, size_t fdCount, const Limit* limits, size_t limitCount) {
  for (size_t i = 0; i < limitCount; i++) {
    if (limits[i].resource == RLIMIT_NOFILE) return limits[i].value;
  }
  uint64_t end = 0, placed = 0;
  for (size_t i = 0; i < fdCount; i++) {
    const Fd& fd = fds[i];
    if (fd.number + fd.count > end) end = fd.number + fd.count;
    if (!fd.handed && !fd.made) placed += fd.count;
  }
  return end + placed + 8;
}

// The number the program itself has at the moment of its execveat, which its start filter names. It
// is put there before the limit is set and closed by the exec; from then on the limit keeps the
// actor from having any fd of this number, so it cannot execute a second time.
template <typename Fd, typename Limit>
uint64_t executableFd(const Fd* fds, size_t fdCount, const Limit* limits, size_t limitCount) {
  uint64_t number = fileLimit(fds, fdCount, limits, limitCount);
  for (size_t i = 0; i < fdCount; i++) {
    // Where a limit is too small for its table, the actor will not start; it gets no hole either.
    if (fds[i].number + fds[i].count > number) number = fds[i].number + fds[i].count;
  }
  return number;
}

inline uint64_t fileLimit(const Profile& profile) {
  return fileLimit(profile.fds, profile.fdCount, profile.limits, profile.limitCount);
}

inline uint64_t executableFd(const Profile& profile) {
  return executableFd(profile.fds, profile.fdCount, profile.limits, profile.limitCount);
}

}  // namespace troupe::sandbox
