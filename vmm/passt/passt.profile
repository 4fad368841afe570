# passt, of the distribution's package: TCP, UDP and ICMP of a guest's as the sockets of an ordinary user.
# Not a program of ours: it closes a jail of its own around itself (an own user namespace, an empty root,
# a filter of 30 calls) once it has looked at the host's network. This profile is the jail around that one.
actor: "passt"
include: "sandbox/common/jail.profile"

helper {
  reason: "passt reaches the network for --net user"
  root { kind: FILE path: "/lib64/ld-linux-x86-64.so.2" }
  root { kind: FILE path: "/lib/x86_64-linux-gnu/libc.so.6" }
  root { kind: FILE path: "/etc/resolv.conf" optional: true }
  root { kind: FOLDER path: "/tmp" }
  # It looks for its own name, and a faster build of itself beside that; this is the faster one.
  root { kind: LINK path: "/proc/self/exe" target: "/usr/bin/passt.avx2" }
}

# The network is the host's: to reach it is what passt is for.
namespaces { kind: [ USER, PID, MOUNT, IPC, UTS, CGROUP ] }
# Landlock would forbid the mounts of its own jail.
landlock { deny: [ ABSTRACT_SOCKETS, SIGNALS ] optional: "since 6.12" }
mdwe { off: "its loader maps libraries, and it is not a program that would ask" }

fd { name: "null" number: 0 count: 2 kind: CHARACTER_DEVICE }
fd { name: "log" number: 2 kind: PIPE }
fd { name: "frames" number: 3 kind: SOCKET }

start {
  rule { syscall: "brk" syscall: "mmap" syscall: "munmap" syscall: "mprotect" syscall: "madvise" reason: "its loader, and memory" }
  rule { syscall: "access" syscall: "openat" syscall: "newfstatat" syscall: "fstat" syscall: "read" syscall: "pread64" syscall: "lseek" syscall: "close" reason: "libraries and /etc/resolv.conf, in its own root" }
  rule { syscall: "arch_prctl" syscall: "set_tid_address" syscall: "set_robust_list" syscall: "rseq" syscall: "prlimit64" syscall: "getrandom" syscall: "uname" syscall: "sysinfo" reason: "libc's start" }
  rule { syscall: "readlink" reason: "its own name" }
  rule { syscall: "execve" fail: "ENOENT" reason: "there is no other build to run" }

  rule { syscall: "rt_sigaction" syscall: "rt_sigprocmask" syscall: "rt_sigreturn" syscall: "sigaltstack" reason: "SIGTERM ends it" }
  rule { syscall: "getpid" syscall: "gettid" syscall: "getuid" syscall: "geteuid" syscall: "getgid" syscall: "getegid" reason: "who it is" }
  rule { syscall: "setgroups" syscall: "setgid" syscall: "setuid" syscall: "setresgid" syscall: "setresuid" reason: "to the ids it has" }
  rule { syscall: "capget" syscall: "capset" reason: "drops what its user namespace gave it" }
  rule { syscall: "prctl" arg { index: 0 value: "PR_SET_DUMPABLE" value: "PR_SET_NO_NEW_PRIVS" value: "PR_CAPBSET_DROP" value: "PR_CAP_AMBIENT" } reason: "its own jail" }
  rule { syscall: "prctl" arg { index: 0 value: "PR_SET_SECCOMP" } arg { index: 1 value: "SECCOMP_MODE_FILTER" } reason: "its own filter" }
  rule { syscall: "unshare" arg { index: 0 flags: "CLONE_NEWUSER|CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWPID" } reason: "its own jail" }
  rule { syscall: "mount" syscall: "umount2" syscall: "pivot_root" syscall: "chdir" reason: "its own empty root, in its own namespace" }

  rule { syscall: "socket" arg { index: 0 value: "AF_INET" value: "AF_INET6" value: "AF_NETLINK" } reason: "the guest's connections; the host's routes and addresses" }
  rule { syscall: "socket" arg { index: 0 value: "AF_UNIX" } arg { index: 1 value: "SOCK_DGRAM|SOCK_CLOEXEC" } reason: "the system's log, of which there is none here; names of interfaces" }
  rule { syscall: "ioctl" arg { index: 1 value: "SIOCGIFNAME" } reason: "names of interfaces" }
  rule { syscall: "bind" syscall: "connect" syscall: "listen" syscall: "accept4" syscall: "shutdown" reason: "the guest's connections" }
  rule { syscall: "getsockopt" syscall: "setsockopt" syscall: "getsockname" syscall: "getpeername" syscall: "fcntl" reason: "the guest's connections" }
  rule { syscall: "sendto" syscall: "recvfrom" syscall: "sendmsg" syscall: "recvmsg" syscall: "sendmmsg" syscall: "recvmmsg" reason: "frames and data" }
  rule { syscall: "epoll_create1" syscall: "epoll_ctl" syscall: "epoll_wait" syscall: "epoll_pwait" reason: "waits for either side" }
  rule { syscall: "timerfd_create" syscall: "timerfd_settime" syscall: "timerfd_gettime" syscall: "clock_gettime" syscall: "clock_nanosleep" reason: "retransmission, time-outs" }
  rule { syscall: "write" syscall: "writev" reason: "log lines; some builds send frames so" }
  rule { syscall: "restart_syscall" syscall: "exit_group" syscall: "exit" reason: "goes on after a stop, and ends" }
}

limit { resource: "NOFILE" value: 2000 }

cgroup {
  memory_max { value: 268435456 optional: "yes" }
  pids_max { value: 4 optional: "yes" }
}
