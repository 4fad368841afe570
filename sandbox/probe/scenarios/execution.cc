// Programs and processes.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sandbox/probe/attempt.h"
#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {
namespace {

long execute(int fd) {
  const char* arguments[] = {"x", nullptr};
  long result = call(SYS_execveat, fd, "", arguments, arguments + 1, AT_EMPTY_PATH);
  return result == -ENOEXEC ? 0 : result;  // it was looked at
}

long executeMemfd() {
  long fd = memfdWith("no program");
  return fd < 0 ? fd : execute(fd);
}

// The filter of `start` knows the program by its number only.
long executeInPlace(int fd, int place) {
  long result = call(SYS_dup3, fd, place, O_CLOEXEC);
  return result < 0 ? result : execute(place);
}

// The child has its parent's stack, so nothing may be called between the two.
long vforked() {
  long pid = perform({SYS_vfork, {}});
  if (pid == 0) perform({SYS_exit_group, {}});
  return pid;
}

long bomb() {
  constexpr int CHILDREN = 20;
  for (int i = 0; i < CHILDREN; i++) {
    long result = cloned(0);
    if (result < 0) return result;
  }
  return CHILDREN;
}

}  // namespace

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
    list.add("execute in the program's place", "fd " + std::to_string(fd),
             [=](const Targets& outside) { return executeInPlace(fd, outside.programFd); });
  }
  list.add("execute in the program's place", "a memfd, by dup2", [](const Targets& outside) {
    long fd = memfdWith("no program");
    if (fd < 0) return fd;
    long result = call(SYS_dup2, fd, outside.programFd);
    return result < 0 ? result : execute(outside.programFd);
  });
  list.add("execute in the program's place", "the log, by fcntl", [](const Targets& outside) {
    return call(SYS_fcntl, 2, F_DUPFD_CLOEXEC, outside.programFd);
  });
  list.add("execute in the program's place", "after a higher limit", [](const Targets& outside) {
    rlim_t more = outside.programFd + 1;
    rlimit limit = {more, more};
    long result = call(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, nullptr);
    return result < 0 ? result : executeInPlace(2, outside.programFd);
  });
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
  list.add("make a process", "vfork", [](const Targets&) { return vforked(); });
  list.add("make a process", "twenty", [](const Targets&) { return bomb(); });
}

}  // namespace troupe::sandbox::probe
