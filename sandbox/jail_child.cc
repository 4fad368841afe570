// The child's way from clone to exec. It shares memory with its parent, the thread pointer
// included, so it makes system calls directly and calls nothing of libc: a lock, a handler or errno
// would be the parent's.

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "sandbox/jail_plan.h"
#include "sandbox/raw_syscall.h"

namespace troupe::sandbox {
namespace {

using Fault = LaunchFaults;

[[noreturn]] void end(int status) {
  for (;;)
    rawSyscall(SYS_exit_group, status);
}

class JailedChild {
 public:
  explicit JailedChild(JailPlan& plan) : plan(plan) {}

  [[noreturn]] void go() {
    if (plan.jailed) {
      separate();
      waitForIds();
      becomeNobody();
    }
    detachFromParent();
    if (plan.jailed) {
      if (!left(Fault::MOUNT_NAMESPACE)) emptyTheRoot();
      dropBoundingSet();
      forbidPrivileges();
    }
    placeFds();
    if (plan.jailed) {
      setLimits();
      dropCapabilities();
    }
    resetSignals();
    if (plan.jailed) installFilter();
    execute();
  }

 private:
  bool left(Fault::Layer layer) const { return plan.faults.all(layer); }

  void at(JailStep step) { __atomic_store_n(&plan.step, uint32_t(step), __ATOMIC_RELEASE); }

  // A negative result ends the child at this step.
  long need(long result) {
    if (result >= 0) return result;
    plan.error = -int(result);
    end(127);
  }

  void separate() {
    at(JailStep::NAMESPACES);
    need(rawSyscall(SYS_unshare, plan.namespaces));
    at(JailStep::HOST_NAME);
    if ((plan.namespaces & CLONE_NEWUTS) != 0) need(rawSyscall(SYS_sethostname, word("troupe"), 6));
  }

  void waitForIds() {
    at(JailStep::WAIT);
    for (;;) {
      uint32_t go = __atomic_load_n(&plan.go, __ATOMIC_ACQUIRE);
      if (go == JailPlan::GO) return;
      // The parent may die before it says anything: look again from time to time.
      timespec pause = {0, 100000000};
      rawSyscall(SYS_futex, word(&plan.go), FUTEX_WAIT, go, word(&pause));
      endIfParentIsDead();
    }
  }

  void becomeNobody() {
    if (!plan.changeIds || left(Fault::USER_NAMESPACE)) return;
    setIds(INSIDE_ID);
  }

  void setIds(unsigned long id) {
    at(JailStep::GROUPS);
    need(rawSyscall(SYS_setgroups, 0, 0));
    at(JailStep::IDS);
    need(rawSyscall(SYS_setresgid, id, id, id));
    need(rawSyscall(SYS_setresuid, id, id, id));
    // A change of ids makes the memory undumpable, and that memory is the parent's.
    need(rawSyscall(SYS_prctl, PR_SET_DUMPABLE, plan.dumpable));
  }

  void detachFromParent() {
    at(JailStep::SESSION);
    need(rawSyscall(SYS_setsid));
    // After the ids, whose change clears it.
    at(JailStep::DEATH_SIGNAL);
    need(rawSyscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL));
    endIfParentIsDead();
  }

  void endIfParentIsDead() {
    // From another pid namespace getppid() is 0 whoever lives.
    pollfd parent = {plan.parentPidFd, POLLIN, 0};
    if (rawSyscall(SYS_poll, word(&parent), 1, 0) != 0) end(127);
  }

  // The new root is a file system without a single free inode, read-only from birth, and the old
  // one is gone with all it held.
  void emptyTheRoot() {
    at(JailStep::PRIVATE_MOUNTS);
    need(rawSyscall(SYS_mount, word("none"), word("/"), 0, MS_REC | MS_PRIVATE));
    if (left(Fault::EMPTY_ROOT)) return;
    at(JailStep::MOUNT_ROOT);
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME;
    bool empty = plan.rootCount == 0;
    if (empty && !left(Fault::READ_ONLY_ROOT)) flags |= MS_RDONLY;
    need(rawSyscall(
        SYS_mount, word("root"), word("/proc"), word("tmpfs"), flags,
        word(empty ? "size=4k,nr_inodes=1,mode=0555" : "size=64k,nr_inodes=256,mode=0755")));
    need(rawSyscall(SYS_chdir, word("/proc")));
    if (!empty) fillRoot();
    at(JailStep::PIVOT_ROOT);
    need(rawSyscall(SYS_pivot_root, word("."), word(".")));
    at(JailStep::DETACH_OLD_ROOT);
    need(rawSyscall(SYS_umount2, word("."), MNT_DETACH));
    need(rawSyscall(SYS_chdir, word("/")));
  }

  // In the new root, by relative paths: the host's are still where they were, but for /proc.
  void fillRoot() {
    at(JailStep::FILL_ROOT);
    constexpr unsigned long CLOSED = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV;
    for (size_t i = 0; i < plan.rootCount; i++) {
      const PlannedRootEntry& entry = plan.root[i];
      switch (entry.kind) {
        case PlannedRootEntry::FOLDER:
          need(rawSyscall(SYS_mkdirat, AT_FDCWD, word(entry.at), 0755));
          break;
        case PlannedRootEntry::LINK:
          need(rawSyscall(SYS_symlinkat, word(entry.from), AT_FDCWD, word(entry.at)));
          break;
        case PlannedRootEntry::FILE:
          need(rawSyscall(SYS_mknodat, AT_FDCWD, word(entry.at), S_IFREG | 0444, 0));
          need(rawSyscall(SYS_mount, word(entry.from), word(entry.at), 0, MS_BIND));
          need(rawSyscall(SYS_mount, 0, word(entry.at), 0, CLOSED));
          break;
      }
    }
    need(rawSyscall(SYS_mount, 0, word("."), 0, CLOSED | MS_NOEXEC | MS_NOATIME));
  }

  void dropBoundingSet() {
    at(JailStep::BOUNDING_SET);
    if (!left(Fault::BOUNDING_SET)) {
      for (unsigned long capability = 0;; capability++) {
        if (capability < 64 && (plan.capabilities >> capability & 1) != 0) continue;
        long result = rawSyscall(SYS_prctl, PR_CAPBSET_DROP, capability);
        if (result == -EINVAL && capability > 0) break;  // beyond the last one the kernel has
        need(result);
      }
    }
    at(JailStep::AMBIENT_SET);
    need(rawSyscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL));
  }

  void forbidPrivileges() {
    if (left(Fault::NO_NEW_PRIVILEGES)) return;
    at(JailStep::NO_NEW_PRIVILEGES);
    need(rawSyscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1));
    if (plan.landlockRules < 0 || left(Fault::LANDLOCK)) return;
    at(JailStep::LANDLOCK);
    need(rawSyscall(SYS_landlock_restrict_self, plan.landlockRules, 0));
  }

  // Every fd first moves above all numbers in use, so that none is overwritten while it still
  // waits.
  void placeFds() {
    at(JailStep::MOVE_FDS);
    if (plan.fileLimit[0] != 0)
      need(rawSyscall(SYS_prlimit64, 0, RLIMIT_NOFILE, word(plan.fileLimit), 0));
    for (size_t i = 0; i < plan.fdCount; i++) {
      PlannedFd& fd = plan.fds[i];
      fd.parked = need(rawSyscall(SYS_fcntl, fd.source, F_DUPFD_CLOEXEC, plan.firstFree));
    }
    at(JailStep::CLOSE_FDS);
    // Marked for the exec, because the status pipe lives until then.
    unsigned long last = left(Fault::CLOSED_FDS) ? plan.firstFree - 1 : ~0u;
    need(rawSyscall(SYS_close_range, 0, last, CLOSE_RANGE_CLOEXEC));
    at(JailStep::MOVE_FDS);
    for (size_t i = 0; i < plan.fdCount; i++) {
      PlannedFd& fd = plan.fds[i];
      bool program = i + 1 == plan.fdCount;
      if (fd.parked == fd.number) continue;  // the program, where the parent has very many
      need(rawSyscall(SYS_dup3, fd.parked, fd.number, program ? O_CLOEXEC : 0));
    }
  }

  void setLimits() {
    at(JailStep::LIMITS);
    if (left(Fault::LIMITS)) return;
    for (size_t i = 0; i < plan.limitCount; i++) {
      uint64_t limit[2] = {plan.limits[i].value, plan.limits[i].value};
      need(rawSyscall(SYS_prlimit64, 0, plan.limits[i].resource, word(limit), 0));
    }
  }

  void dropCapabilities() {
    if (plan.changeIds && left(Fault::USER_NAMESPACE) && !left(Fault::OWN_ID)) setIds(plan.hostId);
    keepCapabilities(left(Fault::CAPABILITIES) ? 1 << CAP_NET_RAW : plan.capabilities);
  }

  // Those that are kept go into the ambient set, so that they outlive the exec.
  void keepCapabilities(uint64_t kept) {
    at(JailStep::CAPABILITIES);
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[2] = {};
    for (int half = 0; half < 2; half++) {
      uint32_t bits = kept >> (32 * half);
      sets[half] = {bits, bits, bits};
    }
    need(rawSyscall(SYS_capset, word(&header), word(sets)));
    for (unsigned long capability = 0; capability < 64; capability++) {
      if ((kept >> capability & 1) == 0) continue;
      need(rawSyscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability));
    }
  }

  // No handler of the parent may run here, and nothing ignored there is ignored by the program.
  void resetSignals() {
    at(JailStep::SIGNALS);
    struct {
      unsigned long handler, flags, restorer, mask;
    } action = {};
    for (unsigned long signal = 1; signal <= 64; signal++) {
      if ((plan.signalsToReset >> (signal - 1) & 1) == 0) continue;
      need(rawSyscall(SYS_rt_sigaction, signal, word(&action), 0, sizeof(uint64_t)));
    }
    uint64_t nothing = 0;
    need(rawSyscall(SYS_rt_sigprocmask, SIG_SETMASK, word(&nothing), 0, sizeof(nothing)));
  }

  void installFilter() {
    if (left(Fault::SECCOMP) || left(Fault::NO_NEW_PRIVILEGES)) return;
    at(JailStep::SECCOMP);
    need(rawSyscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, word(&plan.filter)));
  }

  [[noreturn]] void execute() {
    at(JailStep::EXEC);
    int program = plan.fds[plan.fdCount - 1].number;
    need(rawSyscall(SYS_execveat, program, word(""), word(plan.arguments), word(plan.environment),
                    AT_EMPTY_PATH));
    end(127);
  }

  JailPlan& plan;
};

}  // namespace

int enterJail(void* plan) {
  JailedChild(*static_cast<JailPlan*>(plan)).go();
}

const char* describe(JailStep step) {
  switch (step) {
    case JailStep::WAIT:
      return "wait for its ids";
    case JailStep::NAMESPACES:
      return "make its namespaces";
    case JailStep::HOST_NAME:
      return "hide the host's name";
    case JailStep::GROUPS:
      return "leave its groups";
    case JailStep::IDS:
      return "change to its own uid and gid";
    case JailStep::SESSION:
      return "start a session";
    case JailStep::DEATH_SIGNAL:
      return "tie its life to its parent's";
    case JailStep::PRIVATE_MOUNTS:
      return "make its mounts private";
    case JailStep::MOUNT_ROOT:
      return "mount an empty root";
    case JailStep::FILL_ROOT:
      return "put what its program needs into its root";
    case JailStep::PIVOT_ROOT:
      return "change to the empty root";
    case JailStep::DETACH_OLD_ROOT:
      return "detach the host's file systems";
    case JailStep::BOUNDING_SET:
      return "empty its capability bounding set";
    case JailStep::AMBIENT_SET:
      return "empty its ambient capability set";
    case JailStep::NO_NEW_PRIVILEGES:
      return "forbid new privileges";
    case JailStep::LANDLOCK:
      return "enter its landlock domain";
    case JailStep::MOVE_FDS:
      return "move its fds to their numbers";
    case JailStep::CLOSE_FDS:
      return "close the fds that are not its own";
    case JailStep::LIMITS:
      return "set its resource limits";
    case JailStep::CAPABILITIES:
      return "drop its capabilities";
    case JailStep::SIGNALS:
      return "reset its signals";
    case JailStep::SECCOMP:
      return "install its system call filter";
    case JailStep::EXEC:
      return "execute its program";
  }
  return "go on";
}

}  // namespace troupe::sandbox
