#pragma once

#include <capnp/any.h>
#include <kj/async-io.h>
#include <kj/string.h>

#include "sandbox/attest.h"
#include "sandbox/launcher.h"
#include "sandbox/limits/cgroup.h"
#include "vmm/actors/child_log.h"

namespace troupe {

// What to start an actor with.
struct ActorStart {
  const sandbox::Profile& profile;
  int executable;
  kj::StringPtr argv0;
  kj::StringPtr name;                      // within the VM: "blk0"
  kj::StringPtr kind;                      // "broker", "blk", …
  kj::String role;                         // for people: `the device of disk "root.img"`
  kj::Vector<sandbox::HandedFd> fds = {};  // beyond the log pipe, borrowed until start() returns
  kj::Maybe<capnp::AnyPointer::Reader> config = nullptr;
  kj::Array<kj::String> arguments = nullptr;  // of a helper
  kj::StringPtr noise = nullptr;              // what lines begin with that nobody needs to see
  sandbox::Part part = sandbox::Part::FIRST;
  kj::Array<sandbox::FileRange> hostRanges = nullptr;  // of each of its fds "host_memory"
};

// What starts the actors of one VM: the jail, and the control groups with their limits.
struct ActorLauncher {
  sandbox::Launcher& launcher;
  sandbox::VmCgroups& groups;
  kj::Maybe<kj::StringPtr> profileDir = nullptr;  // whose profiles replace those built in
  kj::StringPtr vm = nullptr;                     // its name, where the actors of several VMs print
};

// What was handed to an actor when it was started: for each fd the object behind it, as
// sandbox/fd_view.h tells objects apart.
struct HandedObject {
  kj::String name;
  uint32_t index;
  kj::String object;
  bool listens;  // a socket on which others can reach it
};

// One process of a VM, from its start to its reaping, with what it prints. Destruction kills it.
class Actor {
 public:
  Actor(kj::AsyncIoContext& io, ActorLauncher& launcher, ActorStart start);
  KJ_DISALLOW_COPY(Actor);

  kj::StringPtr name() const { return actorName; }
  kj::StringPtr kind() const { return actorKind; }
  const sandbox::Profile& profile() const { return actorProfile; }
  sandbox::Child& child() { return *process; }

  // The --profile-dir it was started with.
  kj::Maybe<kj::StringPtr> profileDir() const;

  // Where its limits are in force, if it has any that this host can enforce.
  kj::Maybe<const sandbox::ActorCgroup&> group() const;

  // The files that it shares with whoever takes its place, or with what records it.
  kj::ArrayPtr<const sandbox::SharedFile> journals() const { return journalFiles; }

  // Memory of the host's that it maps.
  kj::ArrayPtr<const sandbox::SharedFile> hostMemory() const { return hostFiles; }

  ChildLog& log() { return *messages; }

  kj::ArrayPtr<const HandedObject> handed() const { return handedObjects; }

  // "broker" or "blk0 (the device of disk \"root.img\")".
  kj::String describe() const;

  // Resolves with the wait status. Any number of callers.
  kj::Promise<int> onExit() { return exited.addBranch(); }

  // Whether it has ended or is about to, also while nobody has noticed yet.
  bool isEnding() const { return process->isEnding(); }

  // Resolves when SIGKILL has begun to end it, some time before onExit(); see sandbox::Child.
  kj::Promise<void> onKilled() { return process->onKilled(); }

  // The wait status, once it has ended.
  kj::Maybe<int> waitStatus() const { return status; }

  // Why its jail could not be closed around it, once that is known.
  kj::Maybe<kj::Exception&> startFailure() { return failure; }

  // Fails when the jail could not be closed around it.
  kj::Promise<void> started() { return begun.addBranch(); }

 private:
  kj::String actorName;
  kj::String actorKind;
  kj::String role;
  const sandbox::Profile& actorProfile;
  kj::Maybe<kj::String> profileFolder;
  kj::Vector<HandedObject> handedObjects;
  kj::Array<sandbox::SharedFile> journalFiles;
  kj::Array<sandbox::FileRange> hostRanges;
  kj::Array<sandbox::SharedFile> hostFiles;
  kj::Own<ChildLog> messages;
  kj::Maybe<kj::Own<sandbox::ActorCgroup>> limits;  // outlives the process in it
  kj::Own<sandbox::Child> process;
  kj::Maybe<int> status;
  kj::Maybe<kj::Exception> failure;
  kj::ForkedPromise<void> begun;
  kj::ForkedPromise<int> exited;
};

// Two ends of a connected stream socket.
struct SocketPair {
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};

SocketPair makeSocketPair();

}  // namespace troupe
