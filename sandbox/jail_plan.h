#pragma once

#include <linux/filter.h>

#include <cstddef>
#include <cstdint>

namespace troupe::sandbox {

struct KernelLayers;

// The layers of a jail, for tests that leave one out to see attestation find it. Nothing a user can
// write reaches this.
struct LaunchFaults {
  enum Layer : uint32_t {
    USER_NAMESPACE = 1 << 0,
    PID_NAMESPACE = 1 << 1,
    NET_NAMESPACE = 1 << 2,
    MOUNT_NAMESPACE = 1 << 3,
    IPC_NAMESPACE = 1 << 4,
    UTS_NAMESPACE = 1 << 5,
    CGROUP_NAMESPACE = 1 << 6,
    EMPTY_ROOT = 1 << 7,
    READ_ONLY_ROOT = 1 << 8,
    CAPABILITIES = 1 << 9,
    BOUNDING_SET = 1 << 10,
    NO_NEW_PRIVILEGES = 1 << 11,
    SECCOMP = 1 << 12,
    LIMITS = 1 << 13,
    CLOSED_FDS = 1 << 14,  // beyond the profile's table
    LANDLOCK = 1 << 15,
    OWN_ID = 1 << 16,       // root's children keep its uid
    EXIT_REPORT = 1 << 17,  // no layer: the child is not traced
    // The start filter has its length, but one of its instructions answers with an error instead of
    // killing.
    ALTERED_FILTER = 1 << 18,
  };
  uint32_t leftOut = 0;
  // Taken for what the kernel offers; null: what it does offer. Outlives the launcher.
  const KernelLayers* kernel = nullptr;
  bool all(uint32_t layers) const { return (leftOut & layers) == layers; }
};

// The id an actor sees as its own; nobody's.
constexpr uint32_t INSIDE_ID = 65534;

// Where root's children get their ids as the host sees them: this plus their pid. The range up to
// 0x703fffff (the largest pid there is) is used by no distribution for accounts or subordinate ids.
constexpr uint32_t FIRST_HOST_ID = 0x70000000;

enum class JailStep : uint32_t {
  WAIT,
  NAMESPACES,
  HOST_NAME,
  GROUPS,
  IDS,
  SESSION,
  DEATH_SIGNAL,
  PRIVATE_MOUNTS,
  MOUNT_ROOT,
  FILL_ROOT,
  PIVOT_ROOT,
  DETACH_OLD_ROOT,
  BOUNDING_SET,
  AMBIENT_SET,
  NO_NEW_PRIVILEGES,
  LANDLOCK,
  MOVE_FDS,
  CLOSE_FDS,
  LIMITS,
  CAPABILITIES,
  SIGNALS,
  SECCOMP,
  EXEC,
};

// The step in words, as in "could not …".
const char* describe(JailStep step);

struct PlannedFd {
  int source;
  int parked;  // where it waits while the numbers below are rearranged; the child's own field
  int number;
};

// What a helper's root holds besides folders made for it, in the order it is made.
struct PlannedRootEntry {
  enum Kind { FOLDER, FILE, LINK };
  Kind kind;
  const char* at;    // from the root on, without its slash
  const char* from;  // of a FILE its path on the host, of a LINK where it leads
};

struct PlannedLimit {
  int resource;
  uint64_t value;
};

// All that a cloned child needs to jail itself and execute its program, prepared before the clone.
// It lies in memory shared with the parent.
struct JailPlan {
  bool jailed;
  bool changeIds;  // to INSIDE_ID; else the child has it from the start
  LaunchFaults faults;
  uint64_t namespaces;      // CLONE_NEW… that the child itself unshares
  uint64_t capabilities;    // bit n: capability n is kept
  int parentPidFd;          // readable once the parent is dead
  int dumpable;             // PR_SET_DUMPABLE value that the shared memory has
  int landlockRules;        // a ruleset fd; -1 where the kernel has none
  uint64_t signalsToReset;  // bit n-1: the parent handles or ignores signal n
  PlannedFd* fds;           // the program last, where execveat finds it
  size_t fdCount;
  int firstFree;  // above all numbers of the plan but the program's, which is above any limit
  uint64_t fileLimit[2];         // while fds are put there, soft and hard; soft 0: as it is
  const PlannedRootEntry* root;  // none: the root is empty
  size_t rootCount;
  const PlannedLimit* limits;
  size_t limitCount;
  sock_fprog filter;
  const char* const* arguments;
  const char* const* environment;

  // Between the two processes. `go`: a futex, 0 until the parent has written the id maps.
  enum Go : uint32_t { NOT_YET = 0, GO = 1 };
  uint32_t go;
  uint32_t hostId;  // set before `go`

  // Where the child is, and, once it has failed there, why.
  uint32_t step;  // a JailStep
  int error;
};

// Runs in the child on a stack of its own; executes the program or ends the child.
int enterJail(void* plan);

}  // namespace troupe::sandbox
