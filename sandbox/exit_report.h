#pragma once

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/refcount.h>
#include <kj/vector.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>

#include "sandbox/filter_reading.h"
#include "sandbox/limits/last_use.h"
#include "sandbox/profile.h"
#include "sandbox/refused_call.h"
#include "sandbox/signal_flood.h"
#include "sandbox/watch/call_watch.h"

namespace troupe::sandbox {

class ExitReport;

// Hears that a child has stopped, on behalf of exit reports of one thread. Takes SIGCHLD for
// itself: KJ's onChildExit() cannot be used beside it, pidfds and waiting for known pids can. There
// may be several in a thread: the signal comes once, and whoever takes it looks for all of them.
class ExitReports final: public kj::Refcounted {
 public:
  explicit ExitReports(kj::UnixEventPort& events);
  ~ExitReports() noexcept(false);

 private:
  friend class ExitReport;
  kj::Promise<void> listen();
  // False when there may be more to deal with.
  bool settleAll();

  kj::AutoCloseFd signals;
  kj::UnixEventPort::FdObserver observer;
  kj::Vector<ExitReport*> reports;
  kj::Promise<void> listening;
};

// Looks on from outside as a child dies: of which system call, when its filter killed it.
//
// The child is this thread's tracee from the clone on (PTRACE_SEIZE), with all threads it will
// have. It then stops for us in four cases only: a thread ends, a thread is made, a signal is
// delivered, a stop signal stops it. System calls cost what they cost otherwise. While this object
// lives no one else can trace the child, and the child ends with this thread.
class ExitReport {
 public:
  // `pid`: a child of this thread that has not begun to run its program. Where the kernel does not
  // let it be traced, nothing will be known of its end.
  //
  // `watch`: is told of the calls at which watched filters stop it; `profile` then is one of its
  // own, and a child that cannot be traced throws TRP-jail-051. `program`: the fd it is executed
  // from.
  ExitReport(kj::Own<ExitReports> reports, const Profile& profile, pid_t pid,
             kj::Maybe<CallWatch&> watch = nullptr, int program = -1);
  ~ExitReport() noexcept(false);
  KJ_DISALLOW_COPY(ExitReport);

  // Deals with the stops there are. Never blocks, and never goes on for long: false when there may
  // be more.
  bool settle();

  // Blocks until the child, which is about to end, can be reaped.
  void untilEnded();

  // Resolves when SIGKILL has begun to end the child, which is some time before it can be reaped;
  // for nobody whose end is another one. To be called once.
  kj::Promise<void> onKilled() { return kj::mv(killed.promise); }

  // Whether one of its threads is about to end. What is to be seen of the child goes away then. Of
  // a child that is traced it is known before anything that it holds is closed.
  bool isEnding() const { return ending; }

  // Known once the child can be reaped.
  kj::Maybe<const RefusedCall&> refusedCall() const;

  // Fds and address space it had when it ended, unless it ended by itself and well.
  LastUse lastUse() const { return use; }

  // Whether the child is our tracee, and so nobody else's: not one that was let go.
  bool isTraced() const { return traced && !wasLetGo; }

  // The filters of all threads there are. Each is stopped for that, one time: a system call it
  // waits in goes on afterwards, but for epoll_wait, which returns EINTR. One reading at a time;
  // it waits for a thread that the kernel cannot stop, so the caller sets a deadline.
  kj::Promise<FilterReading> readFilters();

 private:
  enum class Next { HANDLED, NOTHING, ENDED };
  Next handleNext(idtype_t who, int flags);
  void handleStop(pid_t thread, int status);
  void handleSignal(pid_t thread, int signal);
  void examine(pid_t thread);
  void readIfAwaited(pid_t thread);
  void forget(pid_t thread);
  void finishReading();

  kj::Own<ExitReports> reports;
  const Profile& profile;
  pid_t pid;
  kj::Maybe<CallWatch&> watch;
  kj::String program;  // its path, where calls are watched
  bool traced;
  SignalFlood flood;
  bool ending = false;
  bool wasLetGo = false;
  kj::PromiseFulfillerPair<void> killed = kj::newPromiseAndFulfiller<void>();
  kj::Maybe<RefusedCall> refused;
  LastUse use;

  // While filters are read.
  struct Reading {
    kj::Own<kj::PromiseFulfiller<FilterReading>> done;
    kj::Vector<pid_t> awaited;  // threads that are about to stop
    kj::Vector<ThreadFilters> threads;
    kj::String refusal;
  };
  kj::Maybe<Reading> reading;
};

}  // namespace troupe::sandbox
