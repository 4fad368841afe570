#include "sandbox/probe/scenarios.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <type_traits>

namespace troupe::sandbox::probe {
namespace {

constexpr size_t PAGE = 4096;

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

struct NamedFlag {
  const char* name;
  uint64_t flag;
};

constexpr NamedFlag NAMESPACES[] = {{"user", CLONE_NEWUSER},     {"pid", CLONE_NEWPID},
                                    {"net", CLONE_NEWNET},       {"mount", CLONE_NEWNS},
                                    {"ipc", CLONE_NEWIPC},       {"uts", CLONE_NEWUTS},
                                    {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80}};

long answer(long result) {
  return result < 0 ? -long(errno) : result;
}

// An argument as the kernel gets it: filters compare all 64 bits.
template <typename T>
long asWord(T value) {
  if constexpr (std::is_pointer_v<T> || std::is_null_pointer_v<T>) {
    return reinterpret_cast<long>(static_cast<const void*>(value));
  } else {
    return static_cast<long>(value);
  }
}

template <typename... Arguments>
long call(long number, Arguments... arguments) {
  return answer(syscall(number, asWord(arguments)...));
}

class List {
 public:
  template <typename Attempt>
  void add(const char* group, const std::string& name, Attempt attempt) {
    scenarios.push_back({group, name, attempt});
  }

  // One call whose arguments say everything.
  template <typename... Arguments>
  void plain(const char* group, const std::string& name, long number, Arguments... arguments) {
    add(group, name, [=](const Targets&) { return call(number, arguments...); });
  }

  std::vector<Scenario> scenarios;
};

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

long connectTcp(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return answer(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long bindTcp() {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(20000);
  return answer(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long sendUdp() {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(9);
  address.sin_addr.s_addr = htonl(0xc0000201);  // 192.0.2.1, which is nobody's
  return answer(sendto(fd, "x", 1, 0, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long connectUnix(const std::string& name, bool abstract) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path + abstract, name.data(), name.size());
  socklen_t size = offsetof(sockaddr_un, sun_path) + name.size() + 1;
  return answer(connect(fd, reinterpret_cast<sockaddr*>(&address), size));
}

void addNetwork(List& list) {
  for (int family = 0; family < 46; family++) {
    if (family == AF_UNIX) continue;  // has scenarios of its own
    list.add("socket that needs privileges", "family " + std::to_string(family) + " raw",
             [=](const Targets&) {
               return answer(socket(family, SOCK_RAW, family == AF_NETLINK ? 63 : 0xff));
             });
    list.plain("socket", "family " + std::to_string(family) + " stream", SYS_socket, family,
               SOCK_STREAM, 0);
    list.plain("socket", "family " + std::to_string(family) + " datagram", SYS_socket, family,
               SOCK_DGRAM, 0);
  }
  list.plain("socket", "UNIX", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
  list.add("socket", "pair", [](const Targets&) {
    int fds[2];
    return answer(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
  });
  list.add("reach by socket", "TCP to the host",
           [](const Targets& outside) { return connectTcp(outside.tcpPort); });
  list.add("reach by socket", "UDP", [](const Targets&) { return sendUdp(); });
  list.add("reach by socket", "abstract",
           [](const Targets& outside) { return connectUnix(outside.abstractName, true); });
  list.add("reach by socket", "D-Bus",
           [](const Targets&) { return connectUnix("/run/dbus/system_bus_socket", false); });
  list.add("serve by socket", "TCP", [](const Targets&) { return bindTcp(); });
}

void addProcess(List& list, const std::string& who, int Targets::*pid) {
  constexpr const char* GROUP = "reach a process";
  auto add = [&](const char* name, auto attempt) {
    list.add(GROUP, name + (" of " + who),
             [=](const Targets& outside) { return attempt(outside.*pid); });
  };
  add("ptrace attach", [](int pid) { return call(SYS_ptrace, PTRACE_ATTACH, pid, 0, 0); });
  add("ptrace seize", [](int pid) { return call(SYS_ptrace, PTRACE_SEIZE, pid, 0, 0); });
  add("memory read", [](int pid) {
    char byte;
    iovec here = {&byte, 1}, there = {&byte, 1};
    return call(SYS_process_vm_readv, pid, &here, 1, &there, 1, 0);
  });
  add("memory write", [](int pid) {
    char byte = 0;
    iovec here = {&byte, 1}, there = {&byte, 1};
    return call(SYS_process_vm_writev, pid, &here, 1, &there, 1, 0);
  });
  add("pidfd", [](int pid) { return call(SYS_pidfd_open, pid, 0); });
  add("signal", [](int pid) { return call(SYS_kill, pid, 0); });
  add("thread signal", [](int pid) { return call(SYS_tgkill, pid, pid, 0); });
  add("signal with data", [](int pid) {
    siginfo_t info = {};
    info.si_code = SI_QUEUE;
    return call(SYS_rt_sigqueueinfo, pid, 0, &info);
  });
  add("limits", [](int pid) { return call(SYS_prlimit64, pid, RLIMIT_NOFILE, nullptr, nullptr); });
  add("kcmp", [](int pid) { return call(SYS_kcmp, pid, pid, 0, 0, 0); });
  add("affinity", [](int pid) {
    uint64_t mask[16];
    return call(SYS_sched_getaffinity, pid, sizeof(mask), mask);
  });
  add("scheduling", [](int pid) { return call(SYS_sched_getscheduler, pid); });
  add("priority", [](int pid) { return call(SYS_setpriority, PRIO_PROCESS, pid, 10); });
  add("pages", [](int pid) { return call(SYS_move_pages, pid, 0, nullptr, nullptr, nullptr, 0); });
  add("robust list", [](int pid) {
    void* head;
    size_t size;
    return call(SYS_get_robust_list, pid, &head, &size);
  });
  add("session", [](int pid) { return call(SYS_getsid, pid); });
}

void addProcesses(List& list) {
  addProcess(list, "troupe", &Targets::parent);
  addProcess(list, "a sibling", &Targets::sibling);
  list.plain("reach a process", "signal to everybody", SYS_kill, -1, 0);
}

long cloned(uint64_t flags) {
  long pid = syscall(SYS_clone, flags | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) syscall(SYS_exit_group, 0);
  return answer(pid);
}

void addNamespaces(List& list) {
  for (const NamedFlag& one : NAMESPACES) {
    const char* group = one.flag == CLONE_NEWUSER ? "new user namespace" : "new namespace";
    list.plain(group, std::string("unshare ") + one.name, SYS_unshare, one.flag);
    uint64_t flag = one.flag;
    if (flag == 0x80) continue;  // a signal number to clone()
    list.add(group, std::string("clone ") + one.name, [=](const Targets&) { return cloned(flag); });
  }
  list.plain(
      "new user namespace", "with all others", SYS_unshare,
      CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS);
  list.add("new namespace", "setns to a process's", [](const Targets& outside) {
    long fd = call(SYS_pidfd_open, outside.parent, 0);
    return fd < 0 ? fd : call(SYS_setns, fd, CLONE_NEWNS);
  });
  list.plain("mount", "tmpfs", SYS_mount, "none", "/", "tmpfs", 0, "");
  list.plain("mount", "proc", SYS_mount, "none", "/", "proc", 0, "");
  list.plain("mount", "writable again", SYS_mount, "none", "/", nullptr, MS_REMOUNT | MS_BIND, "");
  list.plain("mount", "umount", SYS_umount2, "/", MNT_DETACH);
  list.plain("mount", "pivot_root", SYS_pivot_root, ".", ".");
  list.plain("mount", "chroot", SYS_chroot, "/");
  list.plain("mount", "fsopen", SYS_fsopen, "tmpfs", 0);
  list.plain("mount", "open_tree", SYS_open_tree, AT_FDCWD, "/", 1);
  list.plain("mount", "move_mount", SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "/", 0);
  list.add("mount", "mount_setattr", [](const Targets&) {
    uint64_t attributes[4] = {0, 1, 0, 0};  // clears read-only
    return call(SYS_mount_setattr, AT_FDCWD, "/", 0, attributes, sizeof(attributes));
  });
}

void* ownPage() {
  return mmap(nullptr, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

long mapped(int protection, int flags, int fd) {
  void* page = mmap(nullptr, PAGE, protection, flags, fd, 0);
  return page == MAP_FAILED ? -errno : 0;
}

long memfdWith(const char* content) {
  long fd = call(SYS_memfd_create, "probe", 0);
  if (fd < 0) return fd;
  ssize_t written = write(fd, content, strlen(content));
  return written < 0 ? -errno : fd;
}

void addMemory(List& list) {
  constexpr const char* GROUP = "executable memory";
  list.add(GROUP, "writable and executable", [](const Targets&) {
    return mapped(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  });
  list.add(GROUP, "executable", [](const Targets&) {
    return mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  });
  list.add(GROUP, "written, then executable", [](const Targets&) {
    void* page = ownPage();
    if (page == MAP_FAILED) return -long(errno);
    *static_cast<volatile char*>(page) = char(0xc3);
    return answer(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
  });
  list.add(GROUP, "by protection key", [](const Targets&) {
    void* page = ownPage();
    if (page == MAP_FAILED) return -long(errno);
    return call(SYS_pkey_mprotect, page, PAGE, PROT_READ | PROT_EXEC, -1);
  });
  list.add(GROUP, "text made writable and executable", [](const Targets&) {
    auto text = reinterpret_cast<uintptr_t>(&addMemory) & ~(PAGE - 1);
    return answer(
        mprotect(reinterpret_cast<void*>(text), PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
  });
  list.add(GROUP, "of a memfd", [](const Targets&) {
    long fd = memfdWith("\xc3");
    return fd < 0 ? fd : mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE, fd);
  });
  for (int fd : {16, 17, 18, 19, 29}) {
    list.add("executable memory of an fd", "fd " + std::to_string(fd),
             [=](const Targets&) { return mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE, fd); });
  }
  list.add(GROUP, "System V", [](const Targets&) {
    long id = call(SYS_shmget, IPC_PRIVATE, PAGE, IPC_CREAT | 0700);
    return id < 0 ? id : call(SYS_shmat, id, nullptr, SHM_EXEC);
  });
  list.plain(GROUP, "by personality", SYS_personality, READ_IMPLIES_EXEC);
  list.add("page zero", "mmap", [](const Targets&) {
    void* page =
        mmap(nullptr, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return page == MAP_FAILED ? -errno : 0;
  });
}

long execute(int fd) {
  const char* arguments[] = {"x", nullptr};
  long result = call(SYS_execveat, fd, "", arguments, arguments + 1, AT_EMPTY_PATH);
  return result == -ENOEXEC ? 0 : result;  // it was looked at
}

long executeMemfd() {
  long fd = memfdWith("no program");
  return fd < 0 ? fd : execute(fd);
}

// The filter of `start` knows the program by its number only, and that is free after the exec.
long executeInPlace(int fd, int place) {
  long result = call(SYS_dup3, fd, place, O_CLOEXEC);
  return result < 0 ? result : execute(place);
}

long bomb() {
  constexpr int CHILDREN = 20;
  for (int i = 0; i < CHILDREN; i++) {
    long result = cloned(0);
    if (result < 0) return result;
  }
  return CHILDREN;
}

void addExecution(List& list) {
  static const char* arguments[] = {"sh", nullptr};
  for (const char* path : {"/bin/sh", "/usr/bin/env", "/proc/self/exe"}) {
    list.plain("execute a path", path, SYS_execve, path, arguments, arguments + 1);
  }
  list.plain("execute a path", "execveat", SYS_execveat, AT_FDCWD, "/bin/sh", arguments,
             arguments + 1, 0);
  for (int fd : {2, 3, 16, 17, 18, 19, 20}) {
    list.plain("execute an fd", "fd " + std::to_string(fd), SYS_execveat, fd, "", arguments,
               arguments + 1, AT_EMPTY_PATH);
  }
  list.add("execute in the program's place", "path", [](const Targets& outside) {
    return call(SYS_execveat, outside.programFd, "/bin/sh", arguments, arguments + 1, 0);
  });
  for (int fd : {16, 17, 19, 21, 29}) {
    bool memory = fd != 17 && fd != 21;
    list.add(memory ? EXECUTE_MEMORY : "execute in the program's place", "fd " + std::to_string(fd),
             [=](const Targets& outside) { return executeInPlace(fd, outside.programFd); });
  }
  list.add("execute memory", "memfd", [](const Targets&) { return executeMemfd(); });
  list.add("make a process", "fork", [](const Targets&) {
    long pid = syscall(SYS_fork);
    if (pid == 0) syscall(SYS_exit_group, 0);
    return answer(pid);
  });
  list.add("make a process", "clone", [](const Targets&) { return cloned(0); });
  list.add("make a process", "clone as a brother",
           [](const Targets&) { return cloned(CLONE_PARENT); });
  list.add("make a process", "clone untraced",
           [](const Targets&) { return cloned(CLONE_UNTRACED); });
  list.add("make a process", "clone3", [](const Targets&) {
    uint64_t plan[8] = {};
    plan[4] = SIGCHLD;
    long pid = syscall(SYS_clone3, plan, sizeof(plan));
    if (pid == 0) syscall(SYS_exit_group, 0);
    return answer(pid);
  });
  list.add("make a process", "twenty", [](const Targets&) { return bomb(); });
}

void addFilters(List& list) {
  constexpr const char* GROUP = "loosen the jail";
  static sock_filter allow[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  static sock_fprog program = {1, allow};
  list.plain(GROUP, "no_new_privs off", SYS_prctl, PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
  list.plain(GROUP, "strict mode", SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT + 7, 0, 0, 0);
  list.plain(GROUP, "a seccomp mode that is none", SYS_seccomp, 77, 0, nullptr);
  list.plain(GROUP, "securebits", SYS_prctl, PR_SET_SECUREBITS, 0, 0, 0, 0);
  list.plain(GROUP, "ambient capability", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE,
             CAP_SYS_ADMIN, 0, 0);
  list.plain(GROUP, "address space", SYS_prctl, PR_SET_MM, PR_SET_MM_START_BRK, 4096, 0, 0);
  list.add(GROUP, "capset", [](const Targets&) {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct all[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
    return call(SYS_capset, &header, all);
  });
  list.add(GROUP, "higher limit", [](const Targets&) {
    rlimit limit = {1 << 20, 1 << 20};
    return call(SYS_setrlimit, RLIMIT_NOFILE, &limit);
  });
  list.add(GROUP, "core dumps", [](const Targets&) {
    rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    return call(SYS_setrlimit, RLIMIT_CORE, &limit);
  });
  list.plain(GROUP, "uid 0", SYS_setuid, 0);
  list.plain(GROUP, "uid 1000", SYS_setresuid, 1000, 1000, 1000);
  list.plain(GROUP, "gid 0", SYS_setgid, 0);
  list.plain(GROUP, "groups", SYS_setgroups, 0, nullptr);
  list.plain(GROUP, "nice", SYS_setpriority, PRIO_PROCESS, 0, -20);
  list.add(GROUP, "real time", [](const Targets&) {
    sched_param parameter = {1};
    return call(SYS_sched_setscheduler, 0, SCHED_FIFO, &parameter);
  });
  // Whoever listens to a filter decides about calls: allowed calls stay what they are, but a
  // process could keep calls of its own pending for ever.
  constexpr const char* OWN = "change oneself";
  list.plain(OWN, "another filter by prctl", SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER,
             &program, 0, 0);
  list.plain(OWN, "another filter", SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
  list.plain(OWN, "a filter that is listened to", SYS_seccomp, SECCOMP_SET_MODE_FILTER,
             SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  list.plain(OWN, "a filter that lets speculate", SYS_seccomp, SECCOMP_SET_MODE_FILTER,
             SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
  list.plain(OWN, "dumpable", SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
  list.plain(OWN, "tracer", SYS_prctl, PR_SET_PTRACER, -1, 0, 0, 0);
  list.plain(OWN, "outlive the parent", SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
  list.plain(OWN, "subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  list.plain(OWN, "no time stamps", SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
  list.plain(OWN, "fixed addresses", SYS_personality, ADDR_NO_RANDOMIZE);
  list.plain(OWN, "own GS", SYS_arch_prctl, ARCH_SET_GS, 0);
  list.plain(OWN, "local descriptors", SYS_modify_ldt, 0, nullptr, 0);
}

void addMachine(List& list) {
  constexpr const char* GROUP = "change the machine";
  list.plain(GROUP, "host name", SYS_sethostname, "x", 1);
  list.plain(GROUP, "domain name", SYS_setdomainname, "x", 1);
  list.plain(GROUP, "I/O ports", SYS_iopl, 3);
  list.plain(GROUP, "an I/O port", SYS_ioperm, 0x80, 1, 1);
  list.plain(GROUP, "reboot", SYS_reboot, 0, 0, 0, nullptr);  // no magic numbers: never obeyed
  list.plain(GROUP, "swap", SYS_swapon, "/none", 0);
  list.plain(GROUP, "accounting", SYS_acct, "/none");
  list.plain(GROUP, "load a module", SYS_init_module, nullptr, 0, "");
  list.plain(GROUP, "load a module's fd", SYS_finit_module, -1, "", 0);
  list.plain(GROUP, "unload a module", SYS_delete_module, "none", O_NONBLOCK);
  list.plain(GROUP, "another kernel", SYS_kexec_load, 0, ~0ul, nullptr, ~0ul);
  list.plain(GROUP, "kernel log", SYS_syslog, 5, nullptr, 0);
  list.plain(GROUP, "hang up the terminal", SYS_vhangup);
  list.add(GROUP, "clock", [](const Targets&) {
    timespec never = {-1, 0};
    return call(SYS_clock_settime, CLOCK_REALTIME, &never);
  });
  list.plain(GROUP, "quota", SYS_quotactl, 0, nullptr, 0, nullptr);
  list.plain(GROUP, "open by handle", SYS_open_by_handle_at, AT_FDCWD, nullptr, 0);

  constexpr const char* SURFACE = "the kernel's surface";
  list.add(SURFACE, "bpf", [](const Targets&) {
    bpf_attr attributes = {};
    attributes.map_type = BPF_MAP_TYPE_ARRAY;
    attributes.key_size = 4;
    attributes.value_size = 4;
    attributes.max_entries = 1;
    return call(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
  });
  list.add(SURFACE, "perf", [](const Targets&) {
    perf_event_attr attributes = {};
    attributes.size = sizeof(attributes);
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.exclude_kernel = 1;
    return call(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
  });
  list.add(SURFACE, "io_uring", [](const Targets&) {
    char parameters[256] = {};
    return call(SYS_io_uring_setup, 1, parameters);
  });
  list.add(SURFACE, "aio", [](const Targets&) {
    unsigned long context = 0;
    return call(SYS_io_setup, 1, &context);
  });
  list.plain(SURFACE, "userfaultfd", SYS_userfaultfd, O_CLOEXEC);
  list.plain(SURFACE, "userfaultfd, user mode", SYS_userfaultfd, O_CLOEXEC | 1);
  list.plain(SURFACE, "secret memory", 447, 0);
  list.plain(SURFACE, "keys", SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING);
  list.plain(SURFACE, "keyring", SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
  list.plain(SURFACE, "fanotify", SYS_fanotify_init, 0, 0);
  list.plain(SURFACE, "inotify", SYS_inotify_init1, 0);
  list.plain(SURFACE, "memfd", SYS_memfd_create, "probe", 0);
  list.plain(SURFACE, "System V memory", SYS_shmget, IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
  list.plain(SURFACE, "System V messages", SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0600);
  list.plain(SURFACE, "message queue", SYS_mq_open, "probe", O_CREAT | O_RDWR, 0600, nullptr);
  list.plain(SURFACE, "landlock", SYS_landlock_create_ruleset, nullptr, 0, 1);
  list.plain(SURFACE, "timer", SYS_timerfd_create, CLOCK_MONOTONIC, 0);
  list.plain(SURFACE, "pipe", SYS_pipe, nullptr);
}

void addFds(List& list) {
  constexpr const char* GROUP = "fds beyond their use";
  for (int fd : {2, 3}) {
    std::string name = fd == 2 ? " of the log" : " of fd 3";
    list.add(GROUP, "type into the terminal" + name, [=](const Targets&) {
      char x = 'x';
      return call(SYS_ioctl, fd, TIOCSTI, &x);
    });
    list.plain(GROUP, "take the terminal" + name, SYS_ioctl, fd, TIOCSCTTY, 1);
    list.plain(GROUP, "seals" + name, SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE);
    list.plain(GROUP, "size" + name, SYS_ftruncate, fd, 0);
    list.plain(GROUP, "lease" + name, SYS_fcntl, fd, F_SETLEASE, F_RDLCK);
    list.add(GROUP, "owner" + name,
             [=](const Targets& outside) { return call(SYS_fcntl, fd, F_SETOWN, outside.parent); });
    list.plain(GROUP, "peek at" + name, SYS_pread64, fd, nullptr, 0, 0);
  }
  list.plain(GROUP, "map the log", SYS_mmap, nullptr, PAGE, PROT_READ, MAP_SHARED, 2, 0);
  list.plain(GROUP, "listen on fd 3", SYS_listen, 3, 1);
  for (int fd : {16, 17, 19, 29}) {
    std::string name = " of fd " + std::to_string(fd);
    list.plain(GROUP, "seals" + name, SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE);
    list.plain(GROUP, "size" + name, SYS_ftruncate, fd, 1 << 30);
    list.plain(GROUP, "hole" + name, SYS_fallocate, fd, 3, 0, PAGE);
  }
}

// Calls by the other two conventions of the same kernel.
void addConventions(List& list) {
  list.add("another convention", "i386", [](const Targets&) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    return result;
  });
  for (long number : {0l, 1l, 39l, 60l, 231l, 512l, 520l}) {
    list.plain("another convention", "x32 " + std::to_string(number), 0x40000000 | number, -1, 0,
               0);
  }
}

}  // namespace

std::vector<Scenario> makeScenarios() {
  List list;
  addPaths(list);
  addNetwork(list);
  addProcesses(list);
  addNamespaces(list);
  addMemory(list);
  addExecution(list);
  addFilters(list);
  addMachine(list);
  addFds(list);
  addConventions(list);
  return std::move(list.scenarios);
}

}  // namespace troupe::sandbox::probe
