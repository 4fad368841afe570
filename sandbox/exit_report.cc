#include "sandbox/exit_report.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <linux/audit.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

constexpr long OPTIONS = PTRACE_O_TRACEEXIT | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;

// An actor whose calls are watched can stop faster than it is let go: the event loop gets its turn
// in between.
constexpr int STOPS_AT_ONCE = 64;

// A tracee may be killed at any moment, and what was asked of it then fails; it does not matter any
// more.
bool trace(__ptrace_request request, pid_t thread, uintptr_t address, uintptr_t data) {
  return ptrace(request, thread, address, data) >= 0;
}

kj::AutoCloseFd openSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  KJ_SYSCALL(sigprocmask(SIG_BLOCK, &set, nullptr));
  int fd;
  KJ_SYSCALL(fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

// What `fd` was opened as.
kj::String pathOf(int fd) {
  char path[4096];
  ssize_t n = readlink(kj::str("/proc/self/fd/", fd).cStr(), path, sizeof(path));
  return kj::heapString(path, n < 0 ? 0 : n);
}

// How many filters a thread has, or 0 when the kernel does not tell (before Linux 5.9).
uint32_t countFilters(pid_t thread) {
  int fd = open(kj::str("/proc/", thread, "/status").cStr(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  kj::AutoCloseFd file(fd);
  char text[4096];
  ssize_t n = read(file, text, sizeof(text) - 1);
  text[n < 0 ? 0 : n] = 0;
  constexpr char KEY[] = "\nSeccomp_filters:";
  const char* found = strstr(text, KEY);
  return found == nullptr ? 0 : strtoul(found + sizeof(KEY) - 1, nullptr, 10);
}

// The system call from which the filter sent `thread` into its death. Its registers are then as
// before the call; any other call would have left its result there.
kj::Maybe<CallRegisters> deniedCall(pid_t thread) {
  unsigned long exitCode = 0;
  user_regs_struct registers = {};
  __ptrace_syscall_info info = {};
  bool known =
      trace(PTRACE_GETEVENTMSG, thread, 0, reinterpret_cast<uintptr_t>(&exitCode)) &&
      trace(PTRACE_GETREGS, thread, 0, reinterpret_cast<uintptr_t>(&registers)) &&
      trace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), reinterpret_cast<uintptr_t>(&info));
  if (!known || WTERMSIG(exitCode) != SIGSYS || registers.rax != registers.orig_rax) return nullptr;
  const auto& r = registers;
  if (info.arch == AUDIT_ARCH_I386) {
    return CallRegisters{info.arch, r.orig_rax, r.rip, {r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp}};
  }
  return CallRegisters{info.arch, r.orig_rax, r.rip, {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9}};
}

// Whether the thread's own instruction raised the signal.
bool isFault(pid_t thread, int signal) {
  if (signal != SIGSEGV && signal != SIGBUS && signal != SIGILL && signal != SIGFPE &&
      signal != SIGTRAP) {
    return false;
  }
  siginfo_t info = {};
  return trace(PTRACE_GETSIGINFO, thread, 0, reinterpret_cast<uintptr_t>(&info)) &&
         info.si_code > 0;
}

// Those of this thread.
thread_local kj::Vector<ExitReports*> listeners;

}  // namespace

ExitReports::ExitReports(kj::UnixEventPort& events)
    : signals(openSignals()),
      observer(events, signals, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      listening(
          listen().eagerlyEvaluate([](kj::Exception&& exception) { KJ_LOG(ERROR, exception); })) {
  listeners.add(this);
}

ExitReports::~ExitReports() noexcept(false) {
  for (ExitReports*& listener : listeners) {
    if (listener != this) continue;
    listener = listeners.back();
    listeners.removeLast();
    return;
  }
}

bool ExitReports::settleAll() {
  bool done = true;
  for (ExitReport* report : reports)
    done = report->settle() && done;
  return done;
}

kj::Promise<void> ExitReports::listen() {
  return observer.whenBecomesReadable().then([this]() {
    // One may stand for many.
    signalfd_siginfo taken;
    while (read(signals, &taken, sizeof(taken)) > 0) {
    }
    // Taken from the others as well, who will not hear of it.
    bool more = false;
    for (ExitReports* listener : listeners)
      more = !listener->settleAll() || more;
    // By way of the kernel, so that whatever else has become ready comes first.
    if (more) raise(SIGCHLD);
    return listen();
  });
}

ExitReport::ExitReport(kj::Own<ExitReports> reportsParam, const Profile& profile, pid_t pid,
                       kj::Maybe<CallWatch&> watchParam, int programFd)
    : reports(kj::mv(reportsParam)),
      profile(profile),
      pid(pid),
      watch(watchParam),
      traced(trace(PTRACE_SEIZE, pid, 0,
                   watch == nullptr ? OPTIONS : OPTIONS | PTRACE_O_TRACESECCOMP)) {
  if (watch != nullptr) {
    program = pathOf(programFd);
    if (!traced) {
      KJ_FAIL_REQUIRE(kj::str("TRP-jail-051: the calls of ", profile.actor,
                              " cannot be watched: this host lets no process trace its children; "
                              "`cat /proc/sys/kernel/yama/ptrace_scope` says 3, or a container "
                              "forbids ptrace"));
    }
  }
  reports->reports.add(this);
}

ExitReport::~ExitReport() noexcept(false) {
  KJ_IF_MAYBE (watcher, watch) {
    watcher->forget(pid);
  }
  for (ExitReport*& report : reports->reports) {
    if (report != this) continue;
    report = reports->reports.back();
    reports->reports.removeLast();
    return;
  }
}

kj::Maybe<const RefusedCall&> ExitReport::refusedCall() const {
  KJ_IF_MAYBE (call, refused) {
    return *call;
  }
  return nullptr;
}

bool ExitReport::settle() {
  if (!traced) return true;
  // All its threads are in the process group it makes for itself before it executes its program;
  // until then it has one.
  for (idtype_t who : {P_PID, P_PGID}) {
    Next next;
    int stops = 0;
    while ((next = handleNext(who, WNOHANG)) == Next::HANDLED) {
      if (++stops == STOPS_AT_ONCE) return false;
    }
    if (next == Next::ENDED) {
      finishReading();
      return true;
    }
  }
  return true;
}

void ExitReport::untilEnded() {
  while (traced) {
    if (!settle()) continue;
    idtype_t who = getpgid(pid) == pid ? P_PGID : P_PID;
    if (handleNext(who, 0) != Next::HANDLED) return;
  }
}

ExitReport::Next ExitReport::handleNext(idtype_t who, int flags) {
  // Looked at first and taken then, because the end of the child itself is not ours to take.
  siginfo_t info = {};
  int result = waitid(who, pid, &info, WSTOPPED | WEXITED | WNOWAIT | __WALL | flags);
  if (result < 0 || info.si_pid == 0) return Next::NOTHING;
  pid_t thread = info.si_pid;
  bool stopped = info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED;
  if (!stopped && thread == pid) return Next::ENDED;
  info = {};
  result = waitid(P_PID, thread, &info, (stopped ? WSTOPPED : WEXITED) | WNOHANG | __WALL);
  if (!stopped) forget(thread);
  if (result == 0 && info.si_pid != 0 && stopped) {
    readIfAwaited(thread);
    handleStop(thread, info.si_status);
  }
  return Next::HANDLED;
}

void ExitReport::handleStop(pid_t thread, int status) {
  int event = status >> 8, signal = status & 0xff;
  switch (event) {
    case 0:
      return handleSignal(thread, signal);
    case PTRACE_EVENT_EXIT:
      if (refused == nullptr) examine(thread);
      trace(PTRACE_DETACH, thread, 0, 0);
      return;
    case PTRACE_EVENT_SECCOMP:
      KJ_IF_MAYBE (watcher, watch) {
        watcher->see(profile, program, pid, thread);
      }
      trace(PTRACE_CONT, thread, 0, 0);
      return;
    case PTRACE_EVENT_STOP:
      // A stop signal's stop lasts until SIGCONT; a new thread's is over.
      trace(signal == SIGTRAP ? PTRACE_CONT : PTRACE_LISTEN, thread, 0, 0);
      return;
    default:
      trace(PTRACE_CONT, thread, 0, 0);
  }
}

void ExitReport::handleSignal(pid_t thread, int signal) {
  // The first process of a pid namespace does not die of a fault while it is traced. And one that
  // is sent signal upon signal is let go rather than waited on.
  // A watched one could make no call then.
  bool tooMany = flood.isTooMany(SignalFlood::Clock::now()) && watch == nullptr;
  bool isLast = isFault(thread, signal);
  ending = ending || isLast;  // no further stop says so, where it is the only thread
  wasLetGo = wasLetGo || tooMany;
  trace(isLast || tooMany ? PTRACE_DETACH : PTRACE_CONT, thread, 0, signal);
}

kj::Promise<FilterReading> ExitReport::readFilters() {
  KJ_REQUIRE(reading == nullptr, "one reading of filters at a time");
  if (!traced) return FilterReading{nullptr, kj::str("the host lets nobody be traced")};
  auto folder = kj::str("/proc/", pid, "/task");
  auto threads = listFolder(AT_FDCWD, folder.cStr());
  auto pair = kj::newPromiseAndFulfiller<FilterReading>();
  auto& begun = reading.emplace();
  begun.done = kj::mv(pair.fulfiller);
  KJ_IF_MAYBE (names, threads) {
    for (auto& name : *names) {
      pid_t thread = atoi(name.cStr());
      if (trace(PTRACE_INTERRUPT, thread, 0, 0)) begun.awaited.add(thread);
    }
  }
  if (begun.awaited.size() == 0) finishReading();
  return kj::mv(pair.promise);
}

void ExitReport::readIfAwaited(pid_t thread) {
  KJ_IF_MAYBE (open, reading) {
    for (pid_t awaited : open->awaited) {
      if (awaited != thread) continue;
      readFiltersOf(thread, open->threads, open->refusal);
      return forget(thread);
    }
  }
}

void ExitReport::forget(pid_t thread) {
  KJ_IF_MAYBE (open, reading) {
    auto& awaited = open->awaited;
    for (pid_t& one : awaited) {
      if (one != thread) continue;
      one = awaited.back();
      awaited.removeLast();
      break;
    }
    if (awaited.size() == 0) finishReading();
  }
}

void ExitReport::finishReading() {
  KJ_IF_MAYBE (open, reading) {
    auto finished = kj::mv(*open);
    reading = nullptr;
    finished.done->fulfill({finished.threads.releaseAsArray(), kj::mv(finished.refusal)});
  }
}

void ExitReport::examine(pid_t thread) {
  unsigned long exitCode = 0;
  trace(PTRACE_GETEVENTMSG, thread, 0, reinterpret_cast<uintptr_t>(&exitCode));
  // Some threads end long before their process.
  ending = ending || thread == pid || WIFSIGNALED(exitCode);
  // No limit that shows in its last use ends anybody so, and whoever takes its place is in a hurry.
  if (WIFSIGNALED(exitCode) && WTERMSIG(exitCode) == SIGKILL) return killed.fulfiller->fulfill();
  if (exitCode != 0 && use.addressSpace == 0) use = lookAtUse(pid);
  KJ_IF_MAYBE (registers, deniedCall(thread)) {
    refused = explainCall(profile, *registers, thread == pid, countFilters(thread));
  }
}

}  // namespace troupe::sandbox
