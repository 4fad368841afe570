// What a process could undo of its own jail, and change about itself.

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {

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
  constexpr const char* LIMITS = "exceed a limit";
  list.add(LIMITS, "fds", [](const Targets& outside) {
    return call(SYS_dup3, 2, outside.programFd + 100, O_CLOEXEC);
  });
  list.add(LIMITS, "memory", [](const Targets&) {
    constexpr size_t TERABYTES = size_t{16} << 40;
    void* memory = mmap(nullptr, TERABYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? -errno : 0;
  });
  list.plain(LIMITS, "locked memory", SYS_mlockall, MCL_FUTURE);
  list.plain(LIMITS, "timers", SYS_timer_create, CLOCK_MONOTONIC, nullptr, nullptr);
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

}  // namespace troupe::sandbox::probe
