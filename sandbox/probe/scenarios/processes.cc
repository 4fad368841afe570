// Processes outside of the jail.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {
namespace {

void addByPidFd(List& list, const char* group, const std::string& who, int Targets::*pid) {
  auto add = [&](const char* name, auto attempt) {
    list.add(group, name + (" by pidfd of " + who), [=](const Targets& outside) {
      long fd = call(SYS_pidfd_open, outside.*pid, 0);
      return fd < 0 ? fd : attempt(fd);
    });
  };
  add("an fd", [](long fd) { return call(SYS_pidfd_getfd, fd, 3, 0); });
  add("signal", [](long fd) { return call(SYS_pidfd_send_signal, fd, 0, nullptr, 0); });
  add("namespaces", [](long fd) { return call(SYS_setns, fd, CLONE_NEWNS | CLONE_NEWNET); });
  add("advice on memory", [](long fd) {
    iovec there = {nullptr, 0};
    return call(SYS_process_madvise, fd, &there, 1, 20 /* MADV_COLD */, 0);
  });
  add("release of memory", [](long fd) { return call(SYS_process_mrelease, fd, 0); });
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
  add("process group", [](int pid) { return call(SYS_getpgid, pid); });
  add("signal to the group", [](int pid) { return call(SYS_kill, -pid, 0); });
  add("signal of a thread's number", [](int pid) { return call(SYS_tkill, pid, 0); });
  add("thread signal with data", [](int pid) {
    siginfo_t info = {};
    info.si_code = SI_QUEUE;
    return call(SYS_rt_tgsigqueueinfo, pid, pid, 0, &info);
  });
  add("attributes of scheduling", [](int pid) {
    char attributes[64];
    return call(SYS_sched_getattr, pid, attributes, sizeof(attributes), 0);
  });
  add("I/O priority", [](int pid) { return call(SYS_ioprio_get, 1, pid); });
  add("pages to other nodes", [](int pid) {
    uint64_t nodes[16] = {};
    return call(SYS_migrate_pages, pid, 64, nodes, nodes);
  });
  add("end", [](int pid) { return call(SYS_waitid, P_PID, pid, nullptr, WEXITED | WNOHANG, 0); });
  addByPidFd(list, GROUP, who, pid);
}

}  // namespace

void addProcesses(List& list) {
  addProcess(list, "troupe", &Targets::parent);
  addProcess(list, "a sibling", &Targets::sibling);
  list.plain("reach a process", "signal to everybody", SYS_kill, -1, 0);
  list.plain("reach a process", "signal to one's own group", SYS_kill, 0, 0);
  list.plain("reach a process", "any child's end", SYS_waitid, P_ALL, 0, nullptr, WEXITED | WNOHANG,
             nullptr);
  // Numbers that pidfds would have, had they been left open.
  for (int fd : {3, 5, 16, 20}) {
    list.plain("reach a process", "an fd by fd " + std::to_string(fd), SYS_pidfd_getfd, fd, 3, 0);
  }
  list.plain("reach a process", "be traced", SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
}

}  // namespace troupe::sandbox::probe
