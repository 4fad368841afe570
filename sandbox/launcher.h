#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <sys/types.h>

#include <cstdint>

#include "sandbox/filter_reading.h"
#include "sandbox/jail_plan.h"
#include "sandbox/kernel_layers.h"
#include "sandbox/limits/last_use.h"
#include "sandbox/profile.h"
#include "sandbox/refused_call.h"
#include "sandbox/setup_message.h"
#include "sandbox/watch/call_watch.h"

namespace troupe::sandbox {

class ExitReports;

enum class Jail { ON, OFF };

// A started actor. Destroying it kills and reaps it.
class Child {
 public:
  virtual ~Child() noexcept(false) = default;
  virtual pid_t pid() const = 0;  // as the host counts
  virtual int pidFd() const = 0;

  // Resolves once the child has closed its jail and executed its program; throws with the step that
  // failed and errno in words (TRP-jail-…).
  virtual kj::Promise<void> started() = 0;

  // Resolves with the wait status (WIFEXITED and so on) when it has ended and is reaped.
  virtual kj::Promise<int> onExit() = 0;

  // Resolves when SIGKILL has begun to end it, some time before onExit() does, which will say so;
  // never for one that is not traced, or ends in another way. To be called once.
  virtual kj::Promise<void> onKilled() = 0;

  // Whether it has ended or is about to: what is to be seen of it from outside goes away.
  virtual bool isEnding() const = 0;

  // The system call it died of, when its filter killed it; known once onExit() resolves. None as
  // well where the host does not let a process trace its children, and always with the jail off.
  virtual kj::Maybe<const RefusedCall&> refusedCall() const = 0;

  // What it had used of its limits when it ended; known once onExit() resolves. Of one that nobody
  // could trace only the CPU time.
  virtual LastUse lastUse() const = 0;

  // Whether it is this process's tracee from its first instruction on. Never with the jail off.
  virtual bool isTraced() const = 0;

  // The filters its threads have, instruction by instruction (exit_report.h).
  virtual kj::Promise<FilterReading> readFilters() = 0;

  virtual void kill() = 0;  // SIGKILL; harmless when it has ended
};

// Starts actors in their jails, from a single-threaded process. Children are cloned sharing this
// process's memory until they exec, so they start in parallel and cost no page tables. A child dies
// with the thread that launched it.
//
// A jailed child is traced (exit_report.h), so that its end can be explained: no debugger can
// attach to it, and SIGCHLD is the launcher's. A thread has one launcher, therefore, which may
// start children for any number of VMs, and does not use KJ's onChildExit(). Its event loop must
// turn: a child that ends, makes a thread or is sent a signal waits for it.
class Launcher {
 public:
  // `faults` is for tests of attestation.
  // `watch`: what to write down of the calls of all children; filters are then not those of the
  // profiles, and with WatchRequest::onlyReports() they refuse nothing.
  Launcher(kj::UnixEventPort& events, Jail jail, LaunchFaults faults = {},
           kj::Maybe<const WatchRequest&> watch = nullptr);
  ~Launcher() noexcept(false);

  // Starts `executable` as `name` under `profile`. Returns at once; the child goes on by itself.
  // `argv0` chooses the actor within a multi-call executable. `config` is copied into the child's
  // setup message (null: none). Throws when an fd of the profile is missing or one is unknown to
  // it. Which signals this process handles or ignores is looked up at the first launch, since it
  // takes a system call each, and stays so from then on. `cgroup`: an open folder, the control
  // group in which the child begins (limits/cgroup.h); without one it is in this process's.
  // `arguments`: what a helper finds behind `argv0`; our own programs get none. `part`: for our
  // own.
  kj::Own<Child> launch(const Profile& profile, int executable, kj::StringPtr argv0,
                        kj::StringPtr name, kj::ArrayPtr<const HandedFd> fds,
                        kj::Maybe<capnp::AnyPointer::Reader> config,
                        kj::Maybe<int> cgroup = nullptr,
                        kj::ArrayPtr<const kj::String> arguments = nullptr,
                        Part part = Part::FIRST);

  // `profile` with the filters that launch() gives its actor.
  const Profile& inForce(const Profile& profile);

  // The layers that jails of children launched so far go without, as their profiles allow, because
  // this machine's kernel lacks them: "landlock: TCP (Linux 6.7)".
  kj::ArrayPtr<const kj::String> missingLayers() const;

 private:
  const KernelLayers& kernel();
  LayerPlan planJail(const Profile& profile, kj::StringPtr name);

  kj::UnixEventPort& events;
  Jail jail;
  LaunchFaults faults;
  kj::Maybe<kj::Own<CallWatch>> watch;
  kj::AutoCloseFd self;  // a pidfd of this process
  kj::Maybe<uint64_t> signalsToReset;
  kj::Maybe<KernelLayers> seenKernel;  // at the first launch; it does not change
  kj::Vector<kj::String> missing;
  kj::Own<ExitReports> reports;
};

}  // namespace troupe::sandbox
