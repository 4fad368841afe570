// Paths: opening, changing and looking at them.

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {
namespace {

// Paths that lead somewhere on most hosts.
constexpr const char* PATHS[] = {"/",
                                 ".",
                                 "..",
                                 "../../../../../../../../etc/passwd",
                                 "/bin/sh",
                                 "/boot",
                                 "/dev",
                                 "/dev/cpu/0/msr",
                                 "/dev/fuse",
                                 "/dev/full",
                                 "/dev/hpet",
                                 "/dev/input/event0",
                                 "/dev/kmsg",
                                 "/dev/kvm",
                                 "/dev/loop-control",
                                 "/dev/loop0",
                                 "/dev/mapper/control",
                                 "/dev/mem",
                                 "/dev/net/tun",
                                 "/dev/null",
                                 "/dev/nvme0n1",
                                 "/dev/port",
                                 "/dev/ptmx",
                                 "/dev/pts/0",
                                 "/dev/random",
                                 "/dev/sda",
                                 "/dev/sev",
                                 "/dev/sg0",
                                 "/dev/shm",
                                 "/dev/snapshot",
                                 "/dev/stdin",
                                 "/dev/tty",
                                 "/dev/tty0",
                                 "/dev/ttyS0",
                                 "/dev/udmabuf",
                                 "/dev/uinput",
                                 "/dev/urandom",
                                 "/dev/userfaultfd",
                                 "/dev/vda",
                                 "/dev/vfio/vfio",
                                 "/dev/vhost-net",
                                 "/dev/vhost-vsock",
                                 "/dev/zero",
                                 "/etc",
                                 "/etc/group",
                                 "/etc/hostname",
                                 "/etc/hosts",
                                 "/etc/ld.so.cache",
                                 "/etc/localtime",
                                 "/etc/machine-id",
                                 "/etc/nsswitch.conf",
                                 "/etc/passwd",
                                 "/etc/resolv.conf",
                                 "/etc/shadow",
                                 "/etc/ssl/certs",
                                 "/etc/sudoers",
                                 "/home",
                                 "/lib",
                                 "/lib64/ld-linux-x86-64.so.2",
                                 "/lib/x86_64-linux-gnu/libc.so.6",
                                 "/mnt",
                                 "/opt",
                                 "/proc",
                                 "/proc/1/environ",
                                 "/proc/1/maps",
                                 "/proc/1/mem",
                                 "/proc/1/root",
                                 "/proc/cmdline",
                                 "/proc/config.gz",
                                 "/proc/cpuinfo",
                                 "/proc/kallsyms",
                                 "/proc/kcore",
                                 "/proc/kmsg",
                                 "/proc/meminfo",
                                 "/proc/modules",
                                 "/proc/self",
                                 "/proc/self/exe",
                                 "/proc/self/fd",
                                 "/proc/self/fd/3",
                                 "/proc/self/fdinfo/3",
                                 "/proc/self/maps",
                                 "/proc/self/mem",
                                 "/proc/self/ns/user",
                                 "/proc/self/oom_score_adj",
                                 "/proc/self/root",
                                 "/proc/self/setgroups",
                                 "/proc/self/status",
                                 "/proc/self/task",
                                 "/proc/self/uid_map",
                                 "/proc/stat",
                                 "/proc/sys/kernel/core_pattern",
                                 "/proc/sys/user/max_user_namespaces",
                                 "/proc/thread-self",
                                 "/proc/timer_list",
                                 "/proc/version",
                                 "/root",
                                 "/root/.ssh",
                                 "/run",
                                 "/run/dbus/system_bus_socket",
                                 "/run/docker.sock",
                                 "/run/troupe",
                                 "/sys",
                                 "/sys/devices/system/cpu",
                                 "/sys/fs/cgroup",
                                 "/sys/fs/cgroup/cgroup.procs",
                                 "/sys/kernel/debug",
                                 "/sys/kernel/security",
                                 "/sys/module",
                                 "/tmp",
                                 "/usr/bin/env",
                                 "/usr/bin/newuidmap",
                                 "/var/log",
                                 "/var/run",
                                 "/var/tmp"};

}  // namespace

void addPaths(List& list) {
  for (const char* path : PATHS) {
    list.plain("open", path, SYS_openat, AT_FDCWD, path,
               O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  }
  list.plain("open another way", "open", SYS_open, "/etc/passwd", O_RDONLY);
  list.plain("open another way", "creat", SYS_creat, "/file", 0600);
  list.plain("open another way", "create in /tmp", SYS_openat, AT_FDCWD, "/tmp/troupe-probe",
             O_CREAT | O_RDWR, 0600);
  list.plain("open another way", "unnamed", SYS_openat, AT_FDCWD, "/", O_TMPFILE | O_RDWR, 0600);
  list.add("open another way", "openat2", [](const Targets&) {
    open_how how = {};
    return call(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof(how));
  });
  list.plain("open another way", "below fd 3", SYS_openat, 3, "etc/passwd", O_RDONLY);
  list.plain("change paths", "mkdir", SYS_mkdir, "/folder", 0700);
  list.plain("change paths", "mknod", SYS_mknod, "/node", S_IFCHR | 0600, 0x103);
  list.plain("change paths", "fifo", SYS_mknod, "/fifo", S_IFIFO | 0600, 0);
  list.plain("change paths", "symlink", SYS_symlink, "/", "/link");
  list.plain("change paths", "link", SYS_link, "/etc/passwd", "/passwd");
  list.plain("change paths", "rename", SYS_rename, "/etc/passwd", "/passwd");
  list.plain("change paths", "unlink", SYS_unlink, "/etc/troupe-probe");
  list.plain("change paths", "chmod", SYS_chmod, "/etc/passwd", 0644);
  list.plain("change paths", "chown", SYS_chown, "/etc/passwd", 0, 0);
  list.plain("change paths", "truncate", SYS_truncate, "/etc/troupe-probe", 0);
  list.plain("look at paths", "stat", SYS_stat, "/etc/passwd", nullptr);
  list.plain("look at paths", "access", SYS_access, "/etc/passwd", F_OK);
  list.add("look at paths", "statx", [](const Targets&) {
    char buffer[256];
    return call(SYS_statx, AT_FDCWD, "/etc/passwd", 0, STATX_ALL, buffer);
  });
  list.add("look at paths", "readlink", [](const Targets&) {
    char buffer[256];
    return call(SYS_readlink, "/proc/self/exe", buffer, sizeof(buffer));
  });
  list.add("look at paths", "fstatat of an absolute path", [](const Targets&) {
    struct stat status;
    return call(SYS_newfstatat, 17, "/etc/passwd", &status, 0);
  });
  list.plain("look at paths", "O_PATH of a name", SYS_openat, AT_FDCWD, "/etc/passwd", O_PATH);
  list.plain("look at paths", "chdir", SYS_chdir, "/etc");
}

}  // namespace troupe::sandbox::probe
