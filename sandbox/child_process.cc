#include "sandbox/child_process.h"

#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/errno_text.h"

namespace troupe::sandbox {
namespace {

int waitStatus(const siginfo_t& info) {
  switch (info.si_code) {
    case CLD_EXITED:
      return (info.si_status & 0xff) << 8;
    case CLD_DUMPED:
      return info.si_status | 0x80;
    default:
      return info.si_status;
  }
}

uint64_t milliseconds(const timeval& time) {
  return uint64_t(time.tv_sec) * 1000 + time.tv_usec / 1000;
}

kj::String describeEnd(int status) {
  if (WIFSIGNALED(status)) {
    return kj::str("was killed by signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)),
                   ")");
  }
  return kj::str("ended with status ", WEXITSTATUS(status));
}

class ChildProcess final: public Child {
 public:
  ChildProcess(kj::UnixEventPort& events, kj::StringPtr name, pid_t pid, kj::AutoCloseFd pidFdParam,
               kj::AutoCloseFd statusParam, kj::Own<LaunchMemory> memoryParam,
               kj::Maybe<kj::Own<ExitReport>> reportParam)
      : name(kj::heapString(name)),
        childPid(pid),
        pidfd(kj::mv(pidFdParam)),
        status(kj::mv(statusParam)),
        memory(kj::mv(memoryParam)),
        report(kj::mv(reportParam)),
        pidObserver(events, pidfd, kj::UnixEventPort::FdObserver::OBSERVE_READ),
        statusObserver(events, status, kj::UnixEventPort::FdObserver::OBSERVE_READ),
        start(statusObserver.whenBecomesReadable().then([this]() { checkStart(); }).fork()),
        exit(pidObserver.whenBecomesReadable().then([this]() { return reap(); }).fork()) {}

  ~ChildProcess() noexcept(false) {
    if (reaped) return;
    kill();
    reap();
  }

  pid_t pid() const override { return childPid; }
  int pidFd() const override { return pidfd; }
  kj::Promise<void> started() override { return start.addBranch(); }
  kj::Promise<int> onExit() override { return exit.addBranch(); }

  kj::Promise<void> onKilled() override {
    KJ_IF_MAYBE (watch, report) {
      return (*watch)->onKilled();
    }
    return kj::NEVER_DONE;
  }

  bool isEnding() const override {
    KJ_IF_MAYBE (watch, report) {
      if ((*watch)->isEnding()) return true;
    }
    pollfd end = {pidfd, POLLIN, 0};
    return reaped || poll(&end, 1, 0) > 0;
  }

  kj::Maybe<const RefusedCall&> refusedCall() const override {
    KJ_IF_MAYBE (watch, report) {
      return (*watch)->refusedCall();
    }
    return nullptr;
  }

  LastUse lastUse() const override {
    LastUse use;
    KJ_IF_MAYBE (watch, report) {
      use = (*watch)->lastUse();
    }
    use.cpuMs = cpuMs;
    return use;
  }

  bool isTraced() const override {
    KJ_IF_MAYBE (watch, report) {
      return (*watch)->isTraced();
    }
    return false;
  }

  kj::Promise<FilterReading> readFilters() override {
    KJ_IF_MAYBE (watch, report) {
      return (*watch)->readFilters();
    }
    return FilterReading{nullptr, kj::str("it is not traced")};
  }

  void kill() override {
    if (!reaped) syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
  }

 private:
  // End of file: the program runs, or there is no child any more.
  void checkStart() {
    const JailPlan& plan = memory->plan;
    auto step = static_cast<JailStep>(__atomic_load_n(&plan.step, __ATOMIC_ACQUIRE));
    int error = plan.error;
    bool executed = step == JailStep::EXEC && error == 0;
    // Nobody uses the child's stack any more; the plan goes with it.
    memory = nullptr;
    if (executed) return;
    if (error == 0) {
      KJ_FAIL_REQUIRE(kj::str("TRP-jail-008: ", name, " ", describeEnd(reap()),
                              " before its jail was closed; it was about to ", describe(step)));
    }
    if (step == JailStep::EXEC) {
      KJ_FAIL_REQUIRE(
          kj::str("TRP-jail-003: ", name, " could not ", describe(step), ": ", errnoText(error)));
    }
    // Only the host's root may raise a hard limit.
    bool tooLow = step == JailStep::LIMITS && error == EPERM;
    KJ_FAIL_REQUIRE(kj::str("TRP-jail-002: the jail of ", name, " cannot be closed: it could not ",
                            describe(step), ": ", errnoText(error),
                            tooLow ? "; its profile needs more than a hard limit of this login "
                                     "allows, as a rule that on open files: `ulimit -Hn` shows it"
                                   : ""));
  }

  int reap() {
    if (!reaped) {
      KJ_IF_MAYBE (watch, report) {
        (*watch)->untilEnded();
      }
      siginfo_t info = {};
      rusage use = {};
      KJ_SYSCALL(syscall(SYS_waitid, P_PIDFD, pidfd.get(), &info, WEXITED | __WALL, &use));
      cpuMs = milliseconds(use.ru_utime) + milliseconds(use.ru_stime);
      reaped = true;
      exitStatus = waitStatus(info);
    }
    return exitStatus;
  }

  kj::String name;
  pid_t childPid;
  kj::AutoCloseFd pidfd;
  kj::AutoCloseFd status;
  kj::Own<LaunchMemory> memory;
  kj::Maybe<kj::Own<ExitReport>> report;
  bool reaped = false;
  int exitStatus = 0;
  uint64_t cpuMs = 0;  // of all its threads, once it is reaped
  kj::UnixEventPort::FdObserver pidObserver;
  kj::UnixEventPort::FdObserver statusObserver;
  kj::ForkedPromise<void> start;
  kj::ForkedPromise<int> exit;
};

}  // namespace

kj::Own<Child> watchChild(kj::UnixEventPort& events, kj::StringPtr name, pid_t pid,
                          kj::AutoCloseFd pidFd, kj::AutoCloseFd status,
                          kj::Own<LaunchMemory> memory, kj::Maybe<kj::Own<ExitReport>> report) {
  return kj::heap<ChildProcess>(events, name, pid, kj::mv(pidFd), kj::mv(status), kj::mv(memory),
                                kj::mv(report));
}

}  // namespace troupe::sandbox
