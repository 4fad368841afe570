// Namespaces and mounts.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {
namespace {

struct NamedFlag {
  const char* name;
  uint64_t flag;
};

constexpr NamedFlag NAMESPACES[] = {{"user", CLONE_NEWUSER},     {"pid", CLONE_NEWPID},
                                    {"net", CLONE_NEWNET},       {"mount", CLONE_NEWNS},
                                    {"ipc", CLONE_NEWIPC},       {"uts", CLONE_NEWUTS},
                                    {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80}};

}  // namespace

void addNamespaces(List& list) {
  for (const NamedFlag& one : NAMESPACES) {
    const char* group = one.flag == CLONE_NEWUSER ? "new user namespace" : "new namespace";
    list.plain(group, std::string("unshare ") + one.name, SYS_unshare, one.flag);
    uint64_t flag = one.flag;
    if (flag == 0x80) continue;  // a signal number to clone()
    list.add(group, std::string("clone ") + one.name, [=](const Targets&) { return cloned(flag); });
    list.add("new namespace by clone3", one.name, [=](const Targets&) {
      uint64_t plan[8] = {flag, 0, 0, 0, SIGCHLD, 0, 0, 0};
      long pid = syscall(SYS_clone3, plan, sizeof(plan));
      if (pid == 0) syscall(SYS_exit_group, 0);
      return answer(pid);
    });
  }
  list.plain(
      "new user namespace", "with all others", SYS_unshare,
      CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS);
  list.add("new namespace", "setns to a process's", [](const Targets& outside) {
    long fd = call(SYS_pidfd_open, outside.parent, 0);
    return fd < 0 ? fd : call(SYS_setns, fd, CLONE_NEWNS);
  });
  list.plain("new namespace", "unshare files", SYS_unshare, CLONE_FILES | CLONE_FS | CLONE_SYSVSEM);
  for (int fd : {3, 16, 17}) {
    list.plain("new namespace", "setns to fd " + std::to_string(fd), SYS_setns, fd, 0);
  }
  list.plain("mount", "tmpfs", SYS_mount, "none", "/", "tmpfs", 0, "");
  list.plain("mount", "proc", SYS_mount, "none", "/", "proc", 0, "");
  list.plain("mount", "writable again", SYS_mount, "none", "/", nullptr, MS_REMOUNT | MS_BIND, "");
  list.plain("mount", "umount", SYS_umount2, "/", MNT_DETACH);
  list.plain("mount", "pivot_root", SYS_pivot_root, ".", ".");
  list.plain("mount", "chroot", SYS_chroot, "/");
  list.plain("mount", "fspick", SYS_fspick, AT_FDCWD, "/", 0);
  list.plain("mount", "fsmount", SYS_fsmount, 3, 0, 0);
  list.plain("mount", "fsopen", SYS_fsopen, "tmpfs", 0);
  list.plain("mount", "open_tree", SYS_open_tree, AT_FDCWD, "/", 1);
  list.plain("mount", "move_mount", SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "/", 0);
  list.add("mount", "mount_setattr", [](const Targets&) {
    uint64_t attributes[4] = {0, 1, 0, 0};  // clears read-only
    return call(SYS_mount_setattr, AT_FDCWD, "/", 0, attributes, sizeof(attributes));
  });
}

}  // namespace troupe::sandbox::probe
